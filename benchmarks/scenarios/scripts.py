"""A script module's run over its command run directly, and over itself with a large data set handed to it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.callers import Caller
from benchmarks.harness import Finding, Measured, Times, p50_by_turns
from benchmarks.ours import exec_target

NAME = "scripts"
COMMAND = Path(__file__).parent.parent / "modules" / "bench-script" / "src" / "nothing.sh"
WARM_UP = 10
OVERHEAD, HANDED = 15.0, 5.0  # ms


def run(bench: Bench) -> Measured:
    """p50 of the differences, in milliseconds."""
    mebibytes = 8 if bench.options.rounds == 1 else 1024
    target = bench.ours.open("bench-script")
    token = target.headers["Xdata-Session-Token"]

    def caller(method: str, given: dict[str, object], params: dict[str, object]) -> Caller:
        return Caller(exec_target(bench.ours.port, token, "bench-script", method, params, given))

    caller("make", {}, {"mebibytes": mebibytes}).times(1)
    plain = caller("nothing", {}, {})
    handed = caller("nothing", {"table": {"data_ddc": "ddc:bench"}}, {})
    contestants: dict[str, Callable[[int], Times]] = {"direct": direct, "plain": plain.times, "handed": handed.times}
    for each in (plain, handed):
        each.times(WARM_UP)  # the first one makes the CSV
    rounds = p50_by_turns(contestants, bench.options)
    return [
        _difference(
            "a script's run, one caller, p50, above its command run directly", rounds, "plain", "direct", OVERHEAD
        ),
        _difference(
            f"the same with a data set of {mebibytes} MiB handed to it, above one without",
            rounds,
            "handed",
            "plain",
            HANDED,
        ),
    ]


def direct(calls: int) -> Times:
    """Seconds of each of that many runs of the command."""
    found = []
    for _ in range(calls):
        begun = time.perf_counter()
        subprocess.run([str(COMMAND), "/tmp"], check=True, stdin=subprocess.DEVNULL)  # noqa: S603, S108
        found.append(time.perf_counter() - begun)
    return found


def _difference(what: str, rounds: dict[str, list[float]], ours: str, other: str, target: float) -> Finding:
    found = [1e3 * (mine - theirs) for mine, theirs in zip(rounds[ours], rounds[other], strict=True)]
    seen = {name: f"{1e3 * median(rounds[name]):.1f} ms" for name in (ours, other)}
    return Finding(NAME, what, median(found), "at most", target, "ms", (min(found), max(found)), seen)
