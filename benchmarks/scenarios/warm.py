"""One caller, one session, the same call again and again."""

from __future__ import annotations

from benchmarks.bench import Bench, absent
from benchmarks.callers import Caller
from benchmarks.harness import Measured, compared, milliseconds, p50_by_turns
from benchmarks.ours import Ours
from benchmarks.peers import Peer

NAME = "warm"
WARM_UP = 50
TARGETS = {"bare": 1.5, "pool": 1.0, "jsonrpc": 1.0}


def run(bench: Bench) -> Measured:
    """p50 of a warm call, over each peer's."""
    servers: dict[str, Ours | Peer] = {"ours": bench.ours, **bench.peers(tuple(TARGETS))}
    callers = {name: Caller(server.open()) for name, server in servers.items()}
    for caller in callers.values():
        caller.times(WARM_UP)
    rounds = p50_by_turns({name: caller.times for name, caller in callers.items()}, bench.options)
    return [
        compared(
            NAME,
            f"warm call, one caller, p50, over {peer}" + (" (goal 1.3)" if peer == "bare" else ""),
            rounds,
            ("ours", peer),
            "at most" if peer == "bare" else "below",
            TARGETS[peer],
            milliseconds,
        )
        for peer in rounds
        if peer != "ours"
    ] + absent(NAME)
