"""How many sessions are opened in a second."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.harness import Finding, Measured
from benchmarks.load import CONNECTIONS, requests_per_second
from benchmarks.ours import SESSION_PATH

NAME = "opening-sessions"


def run(bench: Bench) -> Measured:
    """`session.open_session` by many callers; each answer has to be a session that is listed afterwards."""
    server, rates = bench.another(NAME), []
    for turn in range(bench.options.rounds):
        caller = server.with_another_key(f"round-{turn}")
        target = caller.target(SESSION_PATH, "session.open_session", {})
        done, taken = requests_per_second(target, bench.options.load_seconds)
        if (listed := caller.count()) < done:
            raise RuntimeError(f"{done} answers came, but only {listed} sessions were opened")
        rates.append(done / taken)
    what = f"sessions opened, {CONNECTIONS} callers"
    return [Finding(NAME, what, median(rates), "at least", 1000, "/s", spread=(min(rates), max(rates)))]
