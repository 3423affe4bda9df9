"""Takes its time, and does not listen."""

from __future__ import annotations

import collections
import itertools
import signal
import time
from pathlib import Path

from dataproc import Context, Module

module = Module("sleeper", version="1.0.0", description="Sleeps.")


@module.method
def nap(seconds: float) -> float:
    """Sleep, as asked."""
    time.sleep(seconds)
    return seconds


@module.method(timeout=1, grace=0.5)
def forever() -> None:
    """Never return."""
    while True:
        signal.pause()


@module.method(timeout=1, grace=0.5)
def deaf() -> None:
    """Never return, and ignore every signal that can be ignored."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(3600)


@module.method(timeout=1, grace=0.5)
def stubborn() -> None:
    """Never return, and catch whatever is raised."""
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            continue


@module.method(timeout=1, grace=0.5)
def spin() -> None:
    """Spin in C code, where no signal handler runs and no other thread either."""
    collections.deque(itertools.repeat(0), maxlen=0)


@module.method(timeout=1, grace=0.5)
def stopped() -> None:
    """Stop oneself: not dead, and never done."""
    import os

    os.kill(os.getpid(), signal.SIGSTOP)


@module.method(timeout=1, grace=5)
def polite(ctx: Context) -> None:
    """Clean up when asked to end."""
    try:
        while True:
            signal.pause()
    finally:
        Path(ctx.session, "cleaned").write_text("yes")


@module.method
def wait_for(ctx: Context, name: str) -> str:
    """Say so in `<name>.started`, then wait until the file `name` is there."""
    Path(ctx.session, f"{name}.started").touch()
    while not Path(ctx.session, name).exists():
        time.sleep(0.01)
    return Path(ctx.session, name).read_text()
