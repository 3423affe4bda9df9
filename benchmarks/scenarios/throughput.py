"""Sixteen callers at once: all in one session, and each in its own."""

from __future__ import annotations

from functools import partial

from benchmarks.bench import Bench
from benchmarks.harness import Measured, Skipped, by_turns, compared
from benchmarks.load import CONNECTIONS, NO_WRK, calls_per_second, have_wrk
from benchmarks.ours import Ours
from benchmarks.peers import Peer

NAME = "throughput"
TARGETS = {"bare": 0.9, "pool": 1.5}


def run(bench: Bench) -> Measured:
    """Calls per second, over each peer's."""
    found: Measured = [] if have_wrk() else [Skipped(NAME, NO_WRK)]
    return found + with_sessions(bench, 1, "one session") + with_sessions(bench, CONNECTIONS, "a session each")


def with_sessions(bench: Bench, sessions: int, told: str) -> Measured:
    """The rows for callers spread over that many sessions."""
    servers: dict[str, Ours | Peer] = {"ours": bench.ours, **bench.peers(tuple(TARGETS))}
    targets = {name: [server.open() for _ in range(sessions)] for name, server in servers.items()}
    for each in targets.values():
        calls_per_second(each, bench.options.load_seconds / 2)  # starts the workers
    loads = {name: partial(calls_per_second, each, bench.options.load_seconds) for name, each in targets.items()}
    rounds = by_turns(loads, bench.options.rounds)
    return [
        compared(
            NAME,
            f"calls per second, {CONNECTIONS} callers, {told}, over {peer}",
            rounds,
            ("ours", peer),
            "at least",
            TARGETS[peer],
            lambda rate: f"{rate:.0f}/s",
        )
        for peer in TARGETS
    ]
