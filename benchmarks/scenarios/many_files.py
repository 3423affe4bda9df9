"""The warm call in a session whose directory is full, beside that of a server without such a session."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Measured, compared, milliseconds, p50_by_turns
from benchmarks.ours import exec_target
from benchmarks.scenarios.warm import WARM_UP

NAME = "many-files"


def run(bench: Bench) -> Measured:
    """p50 of the warm call with many files, over that with one. A server watches sizes, so each has its own."""
    full, files = bench.another("many-files"), bench.options.files
    few, many = bench.ours.open(), full.open()
    token = many.headers["Xdata-Session-Token"]
    Caller(exec_target(full.port, token, "bench-files", "fill", {"files": files})).call()
    callers = {"few": Caller(few), "many": Caller(many)}
    for caller in callers.values():
        caller.times(WARM_UP)
    rounds = p50_by_turns({name: caller.times for name, caller in callers.items()}, bench.options)
    what = f"warm call with {files:,} files in the session directory, p50, over one without"
    return [compared(NAME, what, rounds, ("many", "few"), "at most", 1.1, milliseconds)]
