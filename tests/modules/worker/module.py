"""Works as long as it is told to, and says how far it is."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

from dataproc import Context, Module

module = Module("worker", version="1.0.0", description="Works.")


@module.method
def count(ctx: Context, steps: int = 3) -> int:
    """Report progress, print a line, and leave a file, once a step."""
    for step in range(1, steps + 1):
        ctx.progress(step / steps, f"step {step}")
        print(f"step {step}", flush=True)
        Path(ctx.session, f"step-{step}.txt").write_text(str(step))
    return steps


@module.method
def once(ctx: Context, name: str) -> int:
    """Add a line to a file; how many there are."""
    with Path(ctx.session, name).open("a+") as file:
        file.write("run\n")
        return file.tell() // 4


@module.method
def until(ctx: Context, name: str) -> str:
    """Say so in `<name>.started` and on the log, then wait until the file `name` is there."""
    print("started", flush=True)
    with Path(ctx.session, f"{name}.started").open("a") as file:
        file.write("x")
    while not Path(ctx.session, name).exists():
        time.sleep(0.005)
    return Path(ctx.session, name).read_text()


@module.method(exclusive=True)
def alone(ctx: Context, name: str) -> str:
    """The same, one at a time in a session."""
    return until(ctx, name)


@module.method(retries=1, timeout=60)
def dies_once(ctx: Context) -> str:
    """Die the first time."""
    mark = Path(ctx.session, "died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@module.method(retries=1)
def again_until(ctx: Context, name: str) -> str:
    """As `until`, and safe to be run again."""
    return until(ctx, name)


@module.method
def stops(ctx: Context) -> str:
    """Look at the flag, leave a file and return when asked to stop."""
    Path(ctx.session, "started").touch()
    try:
        while not ctx.cancelled:
            time.sleep(0.005)
    finally:
        Path(ctx.session, "kept.txt").write_text("kept")
    return "stopped"


@module.method
def change(ctx: Context) -> None:
    """Make, change and delete files."""
    Path(ctx.session, "old.csv").write_text("changed")
    Path(ctx.session, "gone.txt").unlink()
    folder = Path(ctx.session, "a/b")
    folder.mkdir(parents=True)
    (folder / "new.json").write_text("{}")
    part = Path(ctx.session, "renamed.part")
    part.write_text("x")
    part.rename(Path(ctx.session, "renamed.txt"))
    temporary = Path(ctx.session, "temporary")
    temporary.write_text("x")
    temporary.unlink()


@module.method
def clear(ctx: Context, files: int) -> None:
    """Delete what dataproc itself keeps in the session, and make so many files."""
    shutil.rmtree(Path(ctx.session, ".dataproc"))
    for number in range(files):
        Path(ctx.session, f"made-{number}").write_text("x")


@module.method
def write(ctx: Context, name: str, size: int) -> None:
    """Write a file of so many bytes."""
    Path(ctx.session, name).write_bytes(b"x" * size)
