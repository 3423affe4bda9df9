"""A session is opened and its first call run: for a light module and for one that imports pandas."""

from __future__ import annotations

import time
from functools import partial
from importlib.util import find_spec
from statistics import median

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Finding, Measured, Skipped, by_turns
from benchmarks.ours import Ours

NAME = "first-call"
TARGETS = {"test-module": 6.0, "bench-pandas": 20.0}


def run(bench: Bench) -> Measured:
    """Milliseconds from opening to the answer, p50."""
    modules = [module for module in TARGETS if module != "bench-pandas" or find_spec("pandas")]
    found: Measured = [] if "bench-pandas" in modules else [Skipped(NAME, "package `pandas` is not installed")]
    for module in modules:
        first_call(bench.ours, module)  # the module's own start is not a session's
    contestants = {module: partial(p50, bench.ours, module, bench.options.openings) for module in modules}
    rounds = by_turns(contestants, bench.options.rounds)
    for module, seen in rounds.items():
        what = f"open a session and run its first call, {module}, p50"
        spread = (min(seen), max(seen))
        found.append(Finding(NAME, what, median(seen), "at most", TARGETS[module], "ms", spread))
    return found


def p50(server: Ours, module: str, openings: int) -> float:
    """The median of some openings, in milliseconds."""
    return 1e3 * median(first_call(server, module) for _ in range(openings))


def first_call(server: Ours, module: str) -> float:
    """Seconds of one opening with its first call. The session is closed afterwards, off the clock."""
    begun = time.perf_counter()
    target = server.open(module)
    caller = Caller(target)
    count = caller.count()
    taken = time.perf_counter() - begun
    if count != 1:
        raise RuntimeError(f"a new session held {count - 1} lines already")
    server.close(target)
    return taken
