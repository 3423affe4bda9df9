"""A page of the sessions of one key that has very many."""

from __future__ import annotations

from statistics import median

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Finding, Measured
from benchmarks.ours import SESSION_PATH

NAME = "listed-sessions"
MANY = 9  # times the sessions of the other scenarios, beside those of another key


def run(bench: Bench) -> Measured:
    """p50 of `session.list_sessions`: the newest, one state, and a page in the middle."""
    server, sessions = bench.another(NAME), bench.options.sessions
    server.with_another_key("another").open_many(sessions)
    server.open_many(MANY * sessions)
    first = server.call(SESSION_PATH, "session.list_sessions", {"limit": min(1000, sessions)})
    pages = {"newest": {}, "open": {"state": "open"}, "middle": {"cursor": first["cursor"]}}
    found: Measured = []
    for name, params in pages.items():
        caller = Caller(server.target(SESSION_PATH, "session.list_sessions", params))
        times = [median(caller.times(bench.options.calls)) * 1e3 for _ in range(bench.options.rounds)]
        what = f"list_sessions among {(MANY + 1) * sessions:,}, p50, {name}"
        found.append(Finding(NAME, what, median(times), "at most", 20, "ms", spread=(min(times), max(times))))
    return found
