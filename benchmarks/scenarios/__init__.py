"""One file a scenario; each has `run(bench)`. `ALL` is the order in which they run."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.harness import Measured
from benchmarks.scenarios import (
    ending_sessions,
    first_call,
    listed_files,
    listed_sessions,
    many_files,
    many_sessions,
    object_storage,
    opening_sessions,
    runs,
    scripts,
    tabular_sql,
    throughput,
    transfers,
    views,
    warm,
    worker_memory,
)

ALL: dict[str, Callable[[Bench], Measured]] = {
    "warm": warm.run,
    "throughput": throughput.run,
    "first-call": first_call.run,
    "worker-memory": worker_memory.run,
    "many-files": many_files.run,
    "many-sessions": many_sessions.run,
    "opening-sessions": opening_sessions.run,
    "listed-sessions": listed_sessions.run,
    "ending-sessions": ending_sessions.run,
    "listed-files": listed_files.run,
    "transfers": transfers.run,
    "run-records": runs.records,
    "submit": runs.submit,
    "first-line": runs.first_line,
    "list-runs": runs.listed,
    "events": runs.events,
    "watchers": runs.watchers,
    "views": views.run,
    "scripts": scripts.run,
    "tabular-sql": tabular_sql.run,
    "object-storage": object_storage.run,
}
