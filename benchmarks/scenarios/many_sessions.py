"""The warm call, and the server's memory, with many open sessions."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Finding, Measured, compared, milliseconds, p50_by_turns
from benchmarks.processes import private_memory
from benchmarks.scenarios.warm import WARM_UP

NAME = "many-sessions"
MIB = 2**20


def run(bench: Bench) -> Measured:
    """p50 of the warm call beside a server with few sessions; MiB that the server itself has grown."""
    full, sessions = bench.another("many-sessions"), bench.options.sessions
    callers = {"few": Caller(bench.ours.open()), "many": Caller(full.open())}
    for caller in callers.values():
        caller.times(WARM_UP)
    before = private_memory(full.pid)
    full.open_many(sessions)
    grown = (private_memory(full.pid) - before) / MIB
    rounds = p50_by_turns({name: caller.times for name, caller in callers.items()}, bench.options)
    what = f"warm call with {sessions:,} open sessions, p50, over one with few"
    return [
        compared(NAME, what, rounds, ("many", "few"), "at most", 1.1, milliseconds),
        Finding(NAME, f"server memory for {sessions:,} open sessions", grown, "at most", 50, "MiB"),
    ]
