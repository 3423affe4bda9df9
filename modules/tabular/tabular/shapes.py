"""Tables made of tables: joined, pivoted, sampled, converted."""

# ruff: noqa: S608 - what goes into a query is quoted by `name` and `text`, and the sandbox is the wall
from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import duckdb
from pydantic import BaseModel, Field

from dataproc import Context

from .database import columns_of, connected, name, rows_of, text
from .files import reader_of, relative, source, target
from .formats import WRITTEN, readable, save
from .methods import FUNCTIONS, Aggregate, Column, File, module

Columns = Annotated[list[Column], Field(min_length=1, max_length=100)]
Shown = Annotated[int, Field(ge=0, le=1000, description="How many of the new rows to answer.")]
How = Literal["inner", "left", "right", "full", "semi", "anti"]
MAX_PIVOTED = 500


class Made(BaseModel):
    """A new table: its file, its columns with DuckDB's types, how many rows it has, and the first of them."""

    into: str
    rows: int
    columns: list[dict[str, str]]
    sample: list[list[Any]]


class Converted(BaseModel):
    """A file in another format. size: bytes."""

    into: str
    rows: int
    size: int


@module.method
def join(
    ctx: Context,
    left: File,
    right: File,
    on: Annotated[dict[Column, Column] | Columns, Field(description="Columns, or left column to right column.")],
    how: How = "left",
    into: File = "joined.parquet",
    show: Shown = 5,
) -> Made:
    """Put two tables side by side where columns are equal.

    how: which rows are kept; `semi` and `anti` keep the left table's columns, and its rows with or without a partner.
    A column of the right table whose name the left one has too gets `_right` after it. Nulls meet nulls nowhere.
    """
    one, other = source(ctx.session, left), source(ctx.session, right)
    path = target(ctx.session, into, WRITTEN)
    pairs = on if isinstance(on, dict) else {column: column for column in on}
    with connected(ctx) as connection, _views(connection, {"l": one, "r": other}):
        mine, theirs = (connection.sql(f"FROM {view}").columns for view in ("l", "r"))
        _known(list(pairs), mine, left)
        _known(list(pairs.values()), theirs, right)
        equal = " AND ".join(f"l.{name(a)} = r.{name(b)}" for a, b in pairs.items())
        chosen = _side_by_side(mine, theirs, pairs, how)
        return _made(ctx, connection, f"SELECT {chosen} FROM l {how.upper()} JOIN r ON {equal}", path, show)


@module.method
def pivot(
    ctx: Context,
    file: File,
    rows: Columns,
    columns: Column,
    values: Column | None = None,
    aggregate: Aggregate = "count",
    into: File = "pivoted.parquet",
    show: Shown = 5,
) -> Made:
    """Turn the values of one column into columns: one row for each combination of `rows`.

    values: the column that is aggregated in each cell; without it rows are counted.
    """
    path = target(ctx.session, into, WRITTEN)
    if values is None and aggregate != "count":
        raise ValueError(f"to take the {aggregate}, say of which column: `values`")
    with connected(ctx) as connection, _views(connection, {"l": source(ctx.session, file)}):
        _known([*rows, columns, *([values] if values is not None else [])], connection.sql("FROM l").columns, file)
        across = name(columns)
        found = connection.sql(
            f"SELECT DISTINCT {across}::VARCHAR FROM l ORDER BY 1 LIMIT {MAX_PIVOTED + 1}"
        ).fetchall()
        if len(found) > MAX_PIVOTED:
            raise ValueError(f"column {columns!r} has more than {MAX_PIVOTED} values, each of which would be a column")
        counted = f"{FUNCTIONS[aggregate]}({name(values) if values is not None else '*'})"
        taken = set(rows)
        cells = []
        for (value,) in found:
            title = "null" if value is None else value
            while title in taken:
                title += "_"
            taken.add(title)
            only = f"{across} IS NULL" if value is None else f"{across}::VARCHAR = {text(value)}"
            cells.append(f"{counted} FILTER (WHERE {only}) AS {name(title)}")
        kept = ", ".join(map(name, rows))
        query = f"SELECT {', '.join([kept, *cells])} FROM l GROUP BY {kept} ORDER BY {kept}"
        return _made(ctx, connection, query, path, show)


@module.method
def sample(
    ctx: Context,
    file: File,
    rows: Annotated[int, Field(ge=1, le=100_000_000)] = 1000,
    by: Column | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0,
    into: File = "sample.parquet",
    show: Shown = 5,
) -> Made:
    """Draw rows at random, in the order of the file. The same seed draws the same rows.

    by: draw as many of each value of this column, and of one that has fewer, all.
    """
    path = target(ctx.session, into, WRITTEN)
    with connected(ctx) as connection, _views(connection, {"l": source(ctx.session, file)}):
        _known([by] if by is not None else [], connection.sql("FROM l").columns, file)
        numbered = "SELECT *, row_number() OVER () AS _place FROM l"
        apart = f"PARTITION BY {name(by)} " if by is not None else ""
        kinds = (
            f"SELECT greatest(1, {rows} // count(DISTINCT {name(by)}::VARCHAR)) FROM l" if by is not None else f"{rows}"
        )
        drawn = (
            f"SELECT *, row_number() OVER ({apart}ORDER BY hash(_place * 2654435761 + {seed}), _place) AS _draw "
            f"FROM ({numbered})"
        )
        query = f"SELECT * EXCLUDE (_place, _draw) FROM ({drawn}) WHERE _draw <= ({kinds}) ORDER BY _place"
        return _made(ctx, connection, query, path, show)


@module.method
def convert(
    ctx: Context,
    file: File,
    into: File,
    sheet: Annotated[str, Field(max_length=100)] | None = None,
) -> Converted:
    """Convert a table to the format of the new file's suffix: .parquet, .csv, .tsv, .json, .ndjson, .xlsx, .arrow.

    sheet: of an Excel file; default its first. Excel has no types but number, text, truth and moment: what it cannot
    hold becomes text, and times with a zone are written in UTC.
    """
    path, wanted = source(ctx.session, file), target(ctx.session, into, WRITTEN)
    with connected(ctx) as connection, readable(connection, path, sheet) as table:
        rows = save(connection, f"SELECT * FROM {table}", wanted)
    return Converted(into=relative(ctx.session, wanted), rows=rows, size=wanted.stat().st_size)


class _views:  # noqa: N801 - reads as a word of the `with` line
    """Files as views of those names, while this lasts."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, files: dict[str, Path]) -> None:
        self._connection, self._files = connection, files

    def __enter__(self) -> None:
        for view, path in self._files.items():
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM {reader_of(path)}")

    def __exit__(self, *_: object) -> None:
        for view in self._files:
            self._connection.execute(f"DROP VIEW IF EXISTS {view}")


def _made(ctx: Context, connection: duckdb.DuckDBPyConnection, query: str, path: Path, show: int) -> Made:
    """Write the query's rows, and show the first."""
    rows = save(connection, query, path)
    with readable(connection, path, None) as table:
        relation = connection.sql(f"SELECT * FROM {table}")
        shown = rows_of(relation, show)
        return Made(into=relative(ctx.session, path), rows=rows, columns=columns_of(relation), sample=shown)


def _side_by_side(mine: list[str], theirs: list[str], pairs: dict[str, str], how: How) -> str:
    """The columns of the result: the compared ones once, with the value of the side that has one."""
    if how in ("semi", "anti"):
        return ", ".join(f"l.{name(column)}" for column in mine)
    chosen = [
        f"coalesce(l.{name(column)}, r.{name(pairs[column])}) AS {name(column)}"
        if column in pairs
        else f"l.{name(column)}"
        for column in mine
    ]
    taken = set(mine)
    for column in theirs:
        if column in pairs.values():
            continue
        title = column
        while title in taken:
            title += "_right"
        taken.add(title)
        chosen.append(f"r.{name(column)} AS {name(title)}")
    return ", ".join(chosen)


def _known(asked: list[str], there: list[str], file: str) -> None:
    """ValueError that lists the columns, if one is asked for that is not there."""
    if missing := [column for column in asked if column not in there]:
        raise ValueError(f"there is no column {missing[0]!r} in {file}; there is: {', '.join(there)}")
