"""SQL over a large Parquet file, by `tabular`, beside DuckDB called directly in a script that is already running."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.callers import Caller, result
from benchmarks.harness import Measured, Skipped, Times, compared, milliseconds, p50_by_turns
from benchmarks.ours import exec_target

NAME = "tabular-sql"
MAKE = """
SELECT range AS id, range % 1000 AS station, (hash(range) % 40000) / 1000.0 AS wind,
       DATE '2000-01-01' + CAST(hash(range + 1) % 9000 AS INT) AS day
FROM range({rows})
"""
ASK = """
SELECT station, count(*) AS n, avg(wind) AS wind, max(day) AS day FROM {table} WHERE wind > 2 GROUP BY 1 ORDER BY 1
"""
SHOWN = 1000
WARM_UP = 2
CALLS = 7  # a round; each takes a tenth of a second or more


def run(bench: Bench) -> Measured:
    """p50 of the same query over the same file, over DuckDB's own."""
    if find_spec("duckdb") is None:
        return [Skipped(NAME, "package `duckdb` is not installed; pip install duckdb")]
    rows = 10 * bench.options.rows
    session = bench.ours.open("tabular")
    token = session.headers["Xdata-Session-Token"]

    def caller(**params: object) -> Caller:
        return Caller(exec_target(bench.ours.port, token, "tabular", "sql", params))

    made = result(caller(query=MAKE.format(rows=rows), into="large.parquet", limit=0).call())
    if made["written"] != rows:
        raise RuntimeError(f"{made['written']} rows were written, not {rows}")
    (file,) = (bench.ours.folder / "storage").rglob("large.parquet")
    asked = caller(query=ASK.format(table="large"), limit=SHOWN)
    directly = _directly(file)
    if [row[:2] for row in result(asked.call())["rows"]] != [row[:2] for row in directly()]:
        raise RuntimeError("tabular and DuckDB answer differently")
    contestants: dict[str, Callable[[int], Times]] = {"tabular": asked.times, "duckdb": partial(_times, directly)}
    for times in contestants.values():
        times(WARM_UP)
    rounds = p50_by_turns(contestants, replace(bench.options, blocks=1, calls=min(CALLS, bench.options.calls)))
    bench.ours.close(session)
    what = f"SQL over {rows:,} rows of Parquet, p50, over DuckDB called directly"
    return [compared(NAME, what, rounds, ("tabular", "duckdb"), "at most", 1.2, milliseconds)]


def _directly(file: Path) -> Callable[[], list[list[object]]]:
    import duckdb

    connect: Any = duckdb.connect  # untyped
    connection = connect()
    query = ASK.format(table=f"'{file}'")
    return lambda: [list(row) for row in connection.sql(query).fetchall()]


def _times(work: Callable[[], object], calls: int) -> Times:
    found = []
    for _ in range(calls):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return found
