"""Takes space in the session directory, in ways that are seen and in ways that are hidden."""

from __future__ import annotations

import mmap
import os
import shutil
import threading
import time

from dataproc import Context, Module

module = Module("glutton")
PIECE = 2**18
LONG = "n" * 200
PATIENCE = 20.0  # seconds after which a run that nobody ended gives up


@module.method()
def write(ctx: Context, size: int, path: str = "big") -> int:
    """Write so many bytes at once, and return."""
    (ctx.session / path).parent.mkdir(parents=True, exist_ok=True)
    with open(ctx.session / path, "wb") as file:
        for _ in range(size // PIECE):
            file.write(bytes(PIECE))
    return size


@module.method()
def remain(ctx: Context, how: str, size: int) -> str:
    """Take so many bytes, then wait to be ended."""
    held = _WAYS[how](ctx, size)
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        time.sleep(0.02)
    return f"nobody minded {held}"


@module.method()
def many(ctx: Context, number: int, folders: bool = False) -> int:
    """Make so many empty files, or directories."""
    for count in range(number):
        if folders:
            (ctx.session / f"d{count}" / "e").mkdir(parents=True)
        else:
            (ctx.session / f"f{count}").touch()
    return number


@module.method()
def nest(ctx: Context, depth: int) -> int:
    """Make a nest of so many directories with long names, and go down to its end."""
    os.chdir(ctx.session)
    for _ in range(depth):
        os.mkdir(LONG)
        os.chdir(LONG)
    return depth


@module.method()
def sparse(ctx: Context, size: int) -> int:
    """Make a file of that size with nothing in it."""
    with open(ctx.session / "sparse", "wb") as file:
        return file.truncate(size)


@module.method()
def link(ctx: Context, name: str, target: str) -> None:
    """Make a link to a file of the session."""
    os.symlink(target, ctx.session / name)


@module.method()
def leave_behind(ctx: Context, size: int) -> int:
    """Return, while a thread goes on to write."""

    def later() -> None:
        time.sleep(0.3)
        for count in range(1000):
            write(ctx, size, f"later{count}")
            time.sleep(0.05)

    threading.Thread(target=later, daemon=True).start()
    return os.getpid()


@module.method()
def clear(ctx: Context) -> bool:
    """Delete everything."""
    for entry in ctx.session.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return True


def _plainly(ctx: Context, size: int) -> object:
    return write(ctx, size)


def _deep_down(ctx: Context, size: int) -> object:
    return write(ctx, size, "a/b/c/d/e/big")


def _by_mapping(ctx: Context, size: int) -> object:
    with open(ctx.session / "mapped", "w+b") as file:
        file.truncate(size)
        mapped = mmap.mmap(file.fileno(), size)
    for at in range(0, size, mmap.PAGESIZE):
        mapped[at] = 1
    return mapped


def _without_a_name(ctx: Context, size: int) -> object:
    file = os.open(ctx.session, os.O_TMPFILE | os.O_RDWR, 0o600)
    for _ in range(size // PIECE):
        os.write(file, bytes(PIECE))
    return file


def _unlinked(ctx: Context, size: int) -> object:
    file = open(ctx.session / "short-lived", "wb")  # noqa: SIM115 - held open
    os.unlink(ctx.session / "short-lived")
    for _ in range(size // PIECE):
        file.write(bytes(PIECE))
    file.flush()
    return file


def _moved_in(ctx: Context, size: int) -> object:
    (ctx.session / "one").mkdir()
    write(ctx, size, "one/big")
    (ctx.session / "one").rename(ctx.session / "two")
    return "two"


def _beyond_paths(ctx: Context, size: int) -> object:
    """In a file that no path leads to: the kernel takes 4,095 bytes."""
    nest(ctx, 20)
    held = os.open(LONG, os.O_CREAT | os.O_WRONLY)
    for _ in range(size // PIECE):
        os.write(held, bytes(PIECE))
        time.sleep(0.01)
    return held


_WAYS = {
    "beyond paths": _beyond_paths,
    "plainly": _plainly,
    "deep down": _deep_down,
    "by mapping": _by_mapping,
    "without a name": _without_a_name,
    "unlinked": _unlinked,
    "moved": _moved_in,
}
