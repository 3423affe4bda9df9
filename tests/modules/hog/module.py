"""Takes all it can get."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dataproc import Context, Module

module = Module("hog", version="1.0.0", description="Takes too much.")

MiB = 2**20


@module.method
def memory(kind: str, size: int) -> int:
    """Take memory until there is `size` of it, then wait to be seen."""
    kept = KINDS[kind](size)
    while True:
        if kept is None:
            break
    return size


def _private(size: int) -> object:
    kept = []
    for _ in range(size // (16 * MiB)):
        kept.append(bytearray(b"x") * (16 * MiB))
    return kept


def _shared(size: int) -> object:
    kept = mmap.mmap(-1, size)
    for at in range(0, size, 4096):
        kept[at] = 1
    return kept


def _children(size: int) -> object:
    """Many children, each with a little."""
    for _ in range(16):
        if os.fork() == 0:
            kept = bytearray(b"x") * (size // 16)
            while kept:
                os.sched_yield()
    return True


def _memory_files(size: int) -> object:
    """In files that live in memory and are mapped nowhere."""
    block = bytes(MiB)
    kept = []
    for _ in range(16):
        kept.append(os.memfd_create("hog"))
        for _ in range(size // 16 // MiB):
            os.write(kept[-1], block)
    return kept


def _tables(size: int) -> object:
    """In page tables: a page of tables for each page that is touched."""
    length = size // 4096 * 2 * MiB
    kept = mmap.mmap(-1, length, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ)
    for at in range(0, length, 2 * MiB):
        kept[at]
    return kept


KINDS: dict[str, Any] = {
    "private": _private, "shared": _shared, "children": _children, "memory files": _memory_files, "tables": _tables,
}  # fmt: skip


@module.method
def file(ctx: Context, size: int) -> dict[str, Any]:
    """Write one file until it is refused."""
    written, block = 0, bytes(MiB)
    with open(ctx.session / "big", "wb", buffering=0) as target:
        try:
            while written < size:
                written += target.write(block)
        except OSError as error:
            return {"written": written, "error": errno.errorcode[error.errno or 0]}
    return {"written": written, "error": None}


@module.method
def child_file(ctx: Context, size: int) -> int:
    """The same by a child process; the size of the file then."""
    code = f"f = open({str(ctx.session / 'big')!r}, 'wb', 0)\nwhile f.tell() < {size}: f.write(bytes(2**20))"
    subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, check=False)
    return (ctx.session / "big").stat().st_size


@module.method
def scratch(place: str, size: int) -> dict[str, Any]:
    """Fill a private place with many files."""
    written, block, number = 0, bytes(MiB), 0
    try:
        while written < size:
            with open(Path(place, f"part-{number}"), "wb", buffering=0) as target:
                written += sum(target.write(block) for _ in range(8))
            number += 1
    except OSError as error:
        return {"written": written, "error": errno.errorcode[error.errno or 0]}
    return {"written": written, "error": None}


@module.method
def descriptors() -> dict[str, Any]:
    """Open files until it is refused."""
    opened = []
    try:
        while True:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return {"opened": len(opened), "error": errno.errorcode[error.errno or 0]}
    finally:
        for descriptor in opened:
            os.close(descriptor)


@module.method
def kernel_objects() -> dict[str, int]:
    """Ask for memory that belongs to no process: System V semaphores, a queue, a segment; what each answers."""
    library, private, mode = ctypes.CDLL(None, use_errno=True), 0, 0o600
    asked = {"semget": (private, 32_000, mode), "msgget": (private, mode), "shmget": (private, MiB, mode)}
    return {name: ctypes.get_errno() if getattr(library, name)(*words) < 0 else 0 for name, words in asked.items()}


@module.method
def watches(most: int) -> dict[str, int]:
    """Take queues of file events and timers, and keep them while the worker lives; how many there were."""
    library, made, timer = ctypes.CDLL(None), {"queues": 0, "timers": 0}, ctypes.c_void_p()
    while made["queues"] < most and library.inotify_init1(0) >= 0:
        made["queues"] += 1
    while made["timers"] < most and library.timer_create(0, None, ctypes.byref(timer)) == 0:
        made["timers"] += 1
    return made
