"""The author API is typed: what a type checker accepts and refuses of a module."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODULE = '''
from dataproc import Context, Module

module = Module("typed", version="1.0.0")


@module.method
def plain(ctx: Context, rows: int = 1) -> list[str]:
    """A method stays the function that it was."""
    ctx.progress(0.5, "half")
    with ctx.lock("table"):
        return [path.name for path in ctx.session.iterdir()][:rows]


@module.method("with-options", timeout=60, reads_only=True, output="table")
async def with_options(ctx: Context) -> str:
    """A coroutine too."""
    return ctx.output["table"].read_text()


def uses(ctx: Context) -> int:
    """Called directly, as a test would."""
    return len(plain(ctx, rows=3))
'''
TEST = """
from dataproc.testing import Ran, RunMethod


def test_it(run_method: RunMethod) -> None:
    ran: Ran = run_method("plain", rows=3)
    assert ran.files["a"].read_text()
"""
WRONG = (
    MODULE
    + """

plain(None, rows="three")


@module.method(timeout="long")
def wrong(ctx: Context) -> int:
    return ctx.nothing
"""
)


def check(folder: Path, **texts: str) -> subprocess.CompletedProcess[str]:
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", "--no-error-summary"]
    command += ["--cache-dir", str(folder / "cache"), *(f"{name}.py" for name in texts)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_a_module_is_checked_statically(tmp_path: Path) -> None:
    """A right module and its test pass strictly; wrong arguments, options and members are each refused."""
    right = check(tmp_path, typed=MODULE, test_typed=TEST)
    assert right.returncode == 0, right.stdout
    wrong = check(tmp_path, wrong=WRONG)
    for sign in ('"plain" has incompatible type "None"', '"rows"', "No overload variant", 'has no attribute "nothing"'):
        assert sign in wrong.stdout
