"""What other callers notice while very many sessions end at once."""

from __future__ import annotations

import time
from statistics import quantiles

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Measured, Rounds, Times, compared, milliseconds
from benchmarks.ours import SESSION_PATH, Ours
from benchmarks.scenarios.warm import WARM_UP

NAME = "ending-sessions"
BLOCK = 50  # calls between two looks whether all have ended
DEADLINE = 300.0  # seconds


def run(bench: Bench) -> Measured:
    """p99 of the warm call while the sessions of a key that was revoked end, over its p99 at other times."""
    server, sessions = bench.another(NAME), bench.options.sessions
    operator = server.with_another_key("operator", "--scopes", "admin")
    caller = Caller(server.open())
    caller.times(WARM_UP)
    found: Rounds = {"usual": [], "ending": []}
    for turn in range(bench.options.rounds):
        victim = server.with_another_key(f"victim-{turn}")
        victim.open_many(sessions)
        caller.times(WARM_UP)
        victim.revoke()
        ending = _while_they_end(caller, operator)
        usual = [seconds for _ in range(len(ending) // BLOCK) for seconds in _block(caller, operator)]
        found["usual"].append(_p99(usual))
        found["ending"].append(_p99(ending))
    what = f"warm call while {sessions:,} sessions end, p99, over its usual p99"
    return [compared(NAME, what, found, ("ending", "usual"), "at most", 1.5, milliseconds)]


def _while_they_end(caller: Caller, operator: Ours) -> Times:
    times: Times = []
    begun = time.monotonic()
    while _closing(operator) or not times:
        if time.monotonic() - begun > DEADLINE:
            raise RuntimeError("the sessions did not end")
        times += caller.times(BLOCK)
    return times


def _block(caller: Caller, operator: Ours) -> Times:
    """The same work where nothing ends."""
    _closing(operator)
    return caller.times(BLOCK)


def _closing(operator: Ours) -> bool:
    params = {"all": True, "state": "closing", "limit": 1}
    return bool(operator.call(SESSION_PATH, "session.list_sessions", params)["sessions"])


def _p99(times: Times) -> float:
    return quantiles(times, n=100)[98]
