"""Runs that say when they did what, by the clock that all processes of a machine share."""

from __future__ import annotations

import time

from dataproc import Module

module = Module("bench-runs", version="1.0.0", description="For benchmarks of runs.")


@module.method
def begun() -> float:
    """When the method's first line ran."""
    return time.perf_counter()


@module.method
def sleep(seconds: float) -> None:
    """Keep a worker."""
    time.sleep(seconds)


@module.method
def tick(count: int, pause: float) -> None:
    """Print what time it is, again and again."""
    for _ in range(count):
        print(time.perf_counter(), flush=True)
        time.sleep(pause)


@module.method
def work(rounds: int) -> float:
    """Compute, with a line a round; the seconds that it took."""
    start = time.perf_counter()
    for number in range(rounds):
        sum(range(500_000))
        print(number, flush=True)
    return time.perf_counter() - start
