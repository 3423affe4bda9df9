"""A module to try a server with: each call leaves something in the session directory that the next one finds."""

from __future__ import annotations

import fcntl
import os
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from dataproc import Context, Module

module = Module("test-module", version="1.0.0", description="Shows that a session keeps what its calls leave.")

FOLDER = "test-module"
RECORD = len("artifact-00000001.txt\n")


class Found(TypedDict):
    """How many artifacts this session's calls have left so far, and the newest of them, oldest first."""

    count: int
    artifacts: list[str]


@module.method("session-test")
def session_test(ctx: Context, newest: Annotated[int, Field(ge=0, le=1000)] = 100) -> Found:
    """Leave one more artifact in the session directory; count those that there are, and list the newest.

    No two calls get the same count, however many run at once.
    """
    folder = ctx.session / FOLDER
    folder.mkdir(exist_ok=True)
    with open(folder / "index.txt", "a+b") as index:
        fcntl.flock(index, fcntl.LOCK_EX)  # until the file is closed
        count = index.seek(0, os.SEEK_END) // RECORD + 1
        name = f"artifact-{count:08d}.txt"
        (folder / name).write_text(f"left by call {count}\n")
        index.write(f"{name}\n".encode())
    listed = range(max(1, count - newest + 1), count + 1)
    return {"count": count, "artifacts": [f"{FOLDER}/artifact-{number:08d}.txt" for number in listed]}


@module.method
def append(ctx: Context) -> int:
    """Append a line to `calls.log` in the session directory; answer how many there are."""
    with open(ctx.session / "calls.log", "a+b") as log:
        log.write(b"call\n")
        log.flush()
        return log.tell() // len(b"call\n")
