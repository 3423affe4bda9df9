"""What records of runs cost a call, how fast runs are submitted, begun and found, and how soon watchers see them."""

from __future__ import annotations

import http.client
import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.callers import Caller, Target, post, result
from benchmarks.harness import Finding, Measured, Skipped, by_turns, compared, milliseconds, p50_by_turns
from benchmarks.load import CONNECTIONS, NO_WRK, have_wrk, requests_per_second
from benchmarks.ours import EXEC_PATH
from benchmarks.scenarios.warm import WARM_UP

MODULE = "bench-runs"
UNRECORDED = (
    "from dataproc.database.runs import RunStore; RunStore.behind = lambda self, run: None; "
    "import sys; sys.argv = ['dataproc', 'serve']; from dataproc.cli.app import main; main()"
)
WATCHERS = 200
TICKS, PAUSE = 40, 0.05
LISTED = 100  # records for each session of the options
ROUNDS_OF_WORK = 40


def records(bench: Bench) -> Measured:
    """p50 of the warm call with its record, over the same without one."""
    bare = bench.another("unrecorded", command=(sys.executable, "-c", UNRECORDED))
    callers = {"recorded": Caller(bench.ours.open()), "unrecorded": Caller(bare.open())}
    for caller in callers.values():
        caller.times(WARM_UP)
    rounds = p50_by_turns({name: caller.times for name, caller in callers.items()}, bench.options)
    what = "warm call with its record, p50, over one without"
    return [compared("run-records", what, rounds, ("recorded", "unrecorded"), "at most", 1.05, milliseconds)]


def submit(bench: Bench) -> Measured:
    """Runs that were submitted, a second, while the only slot is taken."""
    server = bench.another("submit", CONCURRENT_RUNS="1", QUEUE_LIMIT="1000000", QUEUE_SHARE="1")
    session = server.open(MODULE)
    rpc(session, "submit", module=MODULE, method="sleep", params={"seconds": 600})
    asked = asking(session, "submit", module=MODULE, method="begun")
    found = []
    for _ in range(bench.options.rounds):
        done, taken = requests_per_second(asked, bench.options.load_seconds)
        found.append(done / taken)
    what = f"submitted runs on record a second, {CONNECTIONS} callers"
    rows: Measured = [] if have_wrk() else [Skipped("submit", NO_WRK)]
    spread = (min(found), max(found))
    return [*rows, Finding("submit", what, median(found), "at least", 1500, "/s", spread=spread)]


def first_line(bench: Bench) -> Measured:
    """From submit to the first line of the method, on a warm session."""
    session, found = bench.ours.open(MODULE), []
    for _ in range(WARM_UP + bench.options.calls * bench.options.rounds):
        begun = time.perf_counter()
        run = rpc(session, "submit", module=MODULE, method="begun")["run_id"]
        found.append((rpc(session, "wait_run", run_id=run)["result"] - begun) * 1e3)
    kept = found[WARM_UP:]
    return [Finding("first-line", "submit to the method's first line, warm, p50", median(kept), "at most", 5, "ms")]


def listed(bench: Bench) -> Measured:
    """A page of runs among very many of one session."""
    server = bench.another("listed")
    session, count = server.open(MODULE), bench.options.sessions * LISTED
    rpc(session, "exec", module=MODULE, method="begun")
    (run,) = rpc(session, "list_runs")["runs"]
    multiply(server.folder / "storage" / "dataproc.db", run["run_id"], count)
    found: Measured = []
    middle = rpc(session, "list_runs", limit=1, cursor=f"00000000-0000-0000-0000-{count // 2:012d}")["cursor"]
    for what, asked in (
        ("the newest", {}), ("from the middle", {"cursor": middle}), ("those that failed", {"status": "failed"}),
    ):  # fmt: skip
        times = []
        for _ in range(bench.options.calls):
            begun = time.perf_counter()
            rpc(session, "list_runs", **asked)
            times.append((time.perf_counter() - begun) * 1e3)
        about = f"list_runs among {count:,} records, {what}, p50"
        found.append(Finding("list-runs", about, median(times), "at most", 20, "ms"))
    return found


def multiply(database: Path, run: str, count: int) -> None:
    """Copy the record of a run very often, under older ids."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        names = [row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] != "id"]
        columns = ", ".join(names)
        older = "printf('00000000-0000-0000-0000-%012d', n)"
        connection.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "  # noqa: S608
            f"INSERT INTO runs (id, {columns}) SELECT {older}, {columns} FROM numbers, runs WHERE runs.id = ?",
            (count, run),
        )
        connection.commit()


def events(bench: Bench) -> Measured:
    """From a line that a run prints to a watcher's reading it."""
    session = bench.ours.open(MODULE)
    run = rpc(session, "submit", module=MODULE, method="tick", params={"count": TICKS, "pause": PAUSE})["run_id"]
    late: list[float] = []
    with watching(session, run) as lines:
        for line in lines:
            now = time.perf_counter()
            if line.startswith(b'data: {"text"'):
                late += [(now - float(each)) * 1e3 for each in json.loads(line[6:])["text"].split()]
    what = "a printed line to its watcher, p50"
    return [Finding("events", what, median(late), "at most", 20, "ms", spread=(min(late), max(late)))]


def watchers(bench: Bench) -> Measured:
    """Time that a run takes with very many watchers, over the same with none."""
    session = bench.ours.open(MODULE)
    rpc(session, "exec", module=MODULE, method="work", params={"rounds": 1})
    rounds = by_turns(
        {"watched": partial(worked, session, WATCHERS), "alone": partial(worked, session, 0)}, bench.options.rounds
    )
    what = f"a run with {WATCHERS} watchers, over one with none"
    return [compared("watchers", what, rounds, ("watched", "alone"), "at most", 1.05, milliseconds)]


def worked(session: Target, number: int) -> float:
    """Seconds that the method worked, watched by so many; nobody reads but the kernel, so that all time is ours."""
    call = {"module": MODULE, "method": "work", "params": {"rounds": ROUNDS_OF_WORK}}
    run = rpc(session, "submit", **call)["run_id"]
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(watching(session, run))
        return float(rpc(session, "wait_run", run_id=run, timeout=60)["result"])


@contextmanager
def watching(session: Target, run: str) -> Iterator[Iterator[bytes]]:
    """The lines of a run's events."""
    connection = http.client.HTTPConnection("127.0.0.1", session.port, timeout=60)
    with closing(connection):
        headers = {name: value for name, value in session.headers.items() if name != "Content-Type"}
        connection.request("GET", f"/api/v1/dataproc/runs/{run}/events", headers=headers)
        yield iter(connection.getresponse())


def asking(session: Target, method: str, /, **params: Any) -> Target:
    """The request that calls a method in the session of a target."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": f"dataproc.{method}", "params": params})
    return Target(session.port, EXEC_PATH, session.headers, body)


_own = threading.local()


def rpc(session: Target, method: str, /, **params: Any) -> Any:
    """Its result."""
    if getattr(_own, "port", None) != session.port:
        _own.port, _own.connection = session.port, http.client.HTTPConnection("127.0.0.1", session.port, timeout=120)
    asked = asking(session, method, **params)
    return result(post(_own.connection, asked.path, asked.headers, asked.body))
