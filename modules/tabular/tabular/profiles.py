"""What stands in a column: counts, range, quantiles, and the values that come most often."""

# ruff: noqa: S608 - what goes into a query is quoted by `name` and `text`, and the sandbox is the wall
from __future__ import annotations

from typing import Any

import duckdb

from .database import name, plain

WHOLE = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"})
NUMBERS = WHOLE | {f"U{kind}" for kind in WHOLE} | {"FLOAT", "DOUBLE", "DECIMAL"}
TIMES = ("DATE", "TIMESTAMP", "TIME")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def profile_column(
    connection: duckdb.DuckDBPyConnection, table: str, column: str, kind: str, top: int
) -> dict[str, Any]:
    """The profile of one column of a view. Members that make no sense for its type are left out."""
    number, moment = is_number(kind), kind.startswith(TIMES) and not kind.endswith("]")
    shown, nested = name(column), not (number or moment or kind in ("VARCHAR", "BOOLEAN", "UUID"))
    if nested or kind == "TIMESTAMP WITH TIME ZONE":
        shown = f"CAST({shown} AS VARCHAR)"
    ordered = number or kind in ("DATE", "TIMESTAMP")
    asked = {"nulls": f"count(*) - count({shown})", "distinct": f"count(DISTINCT {shown})"}
    if not nested:
        asked |= {"min": f"min({shown})", "max": f"max({shown})"}
    if number:  # NaN is a value for DuckDB, and would make every mean NaN
        finite = f"CASE WHEN isfinite({shown}::DOUBLE) THEN {shown}::DOUBLE END"
        asked |= {"mean": f"avg({finite})", "std": f"stddev_samp({finite})"}
    if ordered:
        asked["quantiles"] = f"quantile_disc({shown}, {list(QUANTILES)})"
    query = ", ".join(asked.values())
    found = connection.execute(f"SELECT {query} FROM {name(table)}").fetchone()
    profile = {"name": column, "type": kind, **dict(zip(asked, map(plain, found or ()), strict=True))}
    if profile.get("quantiles"):
        profile["quantiles"] = {f"{q:g}": value for q, value in zip(QUANTILES, profile["quantiles"], strict=True)}
    profile["top"] = _top(connection, table, shown, top)
    return profile


def is_number(kind: str) -> bool:
    """Whether a DuckDB type is one of numbers; a list of them is not."""
    return kind.partition("(")[0] in NUMBERS and not kind.endswith("]")


def _top(connection: duckdb.DuckDBPyConnection, table: str, shown: str, top: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        f"SELECT {shown} AS v, count(*) AS n FROM {name(table)} WHERE {shown} IS NOT NULL "
        f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {top}"
    ).fetchall()
    return [{"value": plain(value), "count": count} for value, count in rows]
