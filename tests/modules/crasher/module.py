"""Ends in every bad way, and answers what cannot be answered."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

from dataproc import Context, Module

module = Module("crasher", version="1.0.0", description="Ends badly.")


@module.method
def ok() -> int:
    """Nothing bad."""
    return os.getpid()


@module.method
def segfault() -> None:
    """Read address 0."""
    ctypes.string_at(0)


@module.method
def abort() -> None:
    """End by SIGABRT."""
    os.abort()


@module.method
def kill(number: int = signal.SIGKILL) -> None:
    """Signal oneself."""
    os.kill(os.getpid(), number)


@module.method
def hard_exit(code: int = 3) -> None:
    """End at once, without a word."""
    os._exit(code)


@module.method
def soft_exit(code: int = 3) -> None:
    """End as a script does."""
    sys.exit(code)


@module.method
def recurse() -> None:
    """Recurse without end."""
    recurse()


@module.method
def c_recurse() -> object:
    """Nest a value deeper than any writer follows."""
    value: list[Any] = []
    for _ in range(200_000):
        value = [value]
    return value


class HostileError(Exception):
    """Cannot be pickled, and has a great deal to say."""

    def __init__(self, size: int) -> None:
        super().__init__("x" * size)
        self.handle = open(os.devnull)  # noqa: SIM115 - no pickle takes an open file

    def __reduce__(self) -> str:
        raise TypeError("not to be pickled")


@module.method
def unpicklable(size: int) -> None:
    """Raise something big that cannot be pickled."""
    raise HostileError(size)


class LyingError(Exception):
    """Raises where it is asked for its text."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


@module.method
def liar() -> None:
    """Raise what cannot even be shown."""
    raise LyingError


@module.method
def no_json(kind: str) -> object:
    """Return what is no JSON."""
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    kinds: dict[str, object] = {
        "object": object(), "function": no_json, "cyclic": cyclic, "module": sys, "number": 10**10_000,
        "keys": {(1, 2): object()},
    }  # fmt: skip
    return kinds[kind]


@module.method
def large(size: int) -> str:
    """Return many bytes."""
    return "x" * size


@module.method
def mark_and_die(ctx: Context, name: str) -> None:
    """Write a file of the session, then die."""
    Path(ctx.session, name).write_text("before")
    os.kill(os.getpid(), signal.SIGKILL)
