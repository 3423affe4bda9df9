"""Starts processes without measure, and leaves them behind."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from dataproc import Context, Module

module = Module("forker", version="1.0.0", description="Forks.")


@module.method
def bomb(count: int) -> dict[str, Any]:
    """Fork so often; how many came to be."""
    made = 0
    for _ in range(count):
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            signal.pause()
            os._exit(0)
        made += 1
    return {"made": made, "refused": made < count}


@module.method
def tree_bomb(depth: int) -> bool:
    """Every fork forks again."""
    for _ in range(depth):
        try:
            os.fork()
        except OSError:
            break
    if os.getpid() != ME:
        signal.pause()
        os._exit(0)
    return True


ME = 2  # in its own PID namespace a worker is process 2


@module.method
def threads(count: int) -> dict[str, Any]:
    """Start so many threads; how many came to be."""
    made, done = [], threading.Event()
    try:
        for _ in range(count):
            made.append(threading.Thread(target=done.wait, daemon=True))
            made[-1].start()
    except RuntimeError:
        return {"made": len(made) - 1, "refused": True}
    finally:
        done.set()
    return {"made": len(made), "refused": False}


@module.method
def leave_behind(ctx: Context) -> None:
    """Leave a process that has left every group and session, and hold a lock as long as it lives."""
    import fcntl

    ready, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            held = os.open(ctx.session / "held", os.O_RDWR | os.O_CREAT)
            fcntl.flock(held, fcntl.LOCK_EX)
            os.write(told, b"x")
            while True:
                signal.pause()
        os._exit(0)
    os.read(ready, 1)
    os.wait()


@module.method
def held(ctx: Context) -> bool:
    """Whether the lock is still held: whether that process still lives."""
    import fcntl

    with open(ctx.session / "held", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@module.method
def pids() -> list[int]:
    """Every process that this worker sees."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
