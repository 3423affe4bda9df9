"""Keeps what it is told in every place that a process has."""

from __future__ import annotations

import builtins
import os
import sys
import tempfile
from pathlib import Path

from dataproc import Context, Module

module = Module("globals", version="1.0.0", description="Remembers.")

KEPT: list[str] = []
PLACES = ("/tmp", "/dev/shm", "/work", "/application", "/locks")


@module.method
def remember(ctx: Context, value: str) -> list[str]:
    """Keep a value everywhere; where that worked."""
    KEPT.append(value)
    ctx.cache["kept"] = value
    os.environ["KEPT"] = value
    builtins.kept = value  # type: ignore[attr-defined]
    sys.modules["json"].kept = value  # type: ignore[attr-defined]
    worked = ["memory"]
    for place in ("/tmp", "/dev/shm", "/locks"):
        try:
            Path(place, "kept").write_text(value)
            worked.append(place)
        except OSError:
            continue
    return worked


@module.method
def recall(ctx: Context) -> dict[str, object]:
    """What is found."""
    found: dict[str, object] = {
        "list": KEPT,
        "cache": ctx.cache.get("kept"),
        "environment": os.environ.get("KEPT"),
        "builtins": getattr(builtins, "kept", None),
        "module": getattr(sys.modules["json"], "kept", None),
    }
    for place in PLACES:
        path = Path(place, "kept")
        found[place] = path.read_text() if path.exists() else None
    return found


@module.method
def scratch(ctx: Context) -> dict[str, object]:
    """What the work directory holds at the start; a file is left there."""
    before = sorted(os.listdir(ctx.work))
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.write(b"left")
    (ctx.work / "left").mkdir()
    return {"before": before, "temporary": file.name, "cwd": os.getcwd(), "home": os.path.expanduser("~")}


@module.method
def resist(ctx: Context, how: str, die: bool = False) -> list[str]:
    """Leave in the work directory what cannot simply be deleted; what was there before."""
    before = sorted(os.listdir(ctx.work))
    if how == "deep":
        for _ in range(1500):
            os.mkdir("nest")
            os.chdir("nest")
    else:
        (ctx.work / "closed" / "inner").mkdir(parents=True)
        (ctx.work / "closed").chmod(0)
        ctx.work.chmod(0 if how == "shut" else 0o700)
    if die:
        os._exit(1)
    return before


@module.method
def append(ctx: Context, line: str) -> int:
    """Add a line to a file of the session under its lock; the number of lines then."""
    with ctx.lock("lines"):
        path = ctx.session / "lines.txt"
        with open(path, "a") as file:
            file.write(line + "\n")
        return len(path.read_text().splitlines())
