"""Tables of a session: look at them, ask them in SQL, convert and draw them. On DuckDB."""

# ruff: noqa: S608 - what goes into a query is quoted by `name` and `text`, and the sandbox is the wall
from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from dataproc import Context, Module

from . import charts
from .database import FORMATS, columns_of, connected, name, one_query, rows_of, tables_of, text, write
from .files import reader_of, relative, source, target
from .profiles import is_number, profile_column

module = Module("tabular", version="1.0.0", description="SQL, profiles, conversion and plots of a session's tables.")

File = Annotated[
    str, Field(min_length=1, max_length=1000, description="A path in the session directory, or a file's stem.")
]
Column = Annotated[str, Field(min_length=1, max_length=1000)]
Aggregate = Literal["count", "sum", "mean", "median", "min", "max"]
TABLES = frozenset(FORMATS)
PICTURES = frozenset({".png"})
MAX_POINTS = 20_000
MAX_COUNTED = 5_000_000  # values of a histogram
TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ,()\[\]]{0,99}")
FUNCTIONS = {"count": "count", "sum": "sum", "mean": "avg", "median": "median", "min": "min", "max": "max"}


@module.method
def load(
    ctx: Context,
    file: File,
    into: File | None = None,
    types: dict[str, str] | None = None,
    delimiter: Annotated[str, Field(min_length=1, max_length=4)] | None = None,
    header: bool | None = None,
    sample: Annotated[int, Field(ge=0, le=100)] = 5,
) -> dict[str, Any]:
    """Read a CSV, Parquet or JSON file; show what was inferred, and with `into` write it as typed Parquet.

    types: DuckDB types of single columns, where the inferred one is wrong: {"zip": "VARCHAR"}. delimiter, header: of a
    CSV file, where they are guessed wrong. sample: how many rows to show.
    """
    path = source(ctx.session, file)
    parquet = target(ctx.session, into, frozenset({".parquet"})) if into else None
    with connected(ctx) as connection:
        read = f"FROM {reader_of(path, _csv_options(delimiter, header))}"
        if types:
            casts = ", ".join(
                f"CAST({name(column)} AS {_type(kind)}) AS {name(column)}" for column, kind in types.items()
            )
            read = f"SELECT * REPLACE ({casts}) {read}"
        relation = connection.sql(read)
        answer: dict[str, Any] = {"file": relative(ctx.session, path), "columns": columns_of(relation)}
        if parquet:
            answer["rows"] = write(connection, read, parquet)
            answer["into"] = relative(ctx.session, parquet)
        else:
            answer["rows"] = connection.sql(f"SELECT count(*) FROM ({read})").fetchall()[0][0]
        answer["sample"] = rows_of(relation, sample)
    return answer


@module.method(reads_only=True)
def profile(
    ctx: Context, file: File, columns: list[Column] | None = None, top: Annotated[int, Field(ge=0, le=100)] = 5
) -> dict[str, Any]:
    """Tell of each column: type, nulls, distinct values, min, max, mean, deviation, quantiles, most frequent values.

    columns: only these.
    """
    path = source(ctx.session, file)
    with connected(ctx) as connection, _table(connection, path):
        relation = connection.sql("FROM profiled")
        kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
        _known(columns or [], kinds)
        profiles = []
        for number, column in enumerate(columns or kinds, 1):
            profiles.append(profile_column(connection, "profiled", column, kinds[column], top))
            ctx.progress(number / len(columns or kinds), column)
        count = connection.sql("SELECT count(*) FROM profiled").fetchall()[0][0]
    return {"file": relative(ctx.session, path), "rows": count, "columns": profiles}


@module.method
def sql(
    ctx: Context,
    query: Annotated[str, Field(min_length=1, max_length=100_000)],
    limit: Annotated[int, Field(ge=0, le=10_000)] = 100,
    into: File | None = None,
) -> dict[str, Any]:
    """Ask the session's files in DuckDB's SQL.

    A file is a table by its name in quotes ('data/weather.csv') or by its stem (weather); where both are there, the
    Parquet of a stem comes before its CSV, and that before its JSON. limit: the most rows to answer. into: a file for
    all rows, in the format of its suffix (.parquet, .csv, .tsv, .json, .ndjson).
    """
    path = target(ctx.session, into, TABLES) if into else None
    with connected(ctx) as connection:
        asked = one_query(connection, query)
        with tables_of(connection, ctx.session, asked):
            answer: dict[str, Any] = {}
            if path:
                answer = {"into": relative(ctx.session, path), "written": write(connection, asked, path)}
                asked = f"FROM {reader_of(path)}"
            relation = connection.sql(asked)
            rows = rows_of(relation, limit + 1)
            columns = columns_of(relation)
    return {"columns": columns, "rows": rows[:limit], "truncated": len(rows) > limit, **answer}


@module.method
def export(ctx: Context, file: File, into: File) -> dict[str, Any]:
    """Convert a table to the format of the new file's suffix: .parquet, .csv, .tsv, .json (one array), .ndjson."""
    path, wanted = source(ctx.session, file), target(ctx.session, into, TABLES)
    with connected(ctx) as connection:
        rows = write(connection, f"FROM {reader_of(path)}", wanted)
    return {"into": relative(ctx.session, wanted), "rows": rows, "size": wanted.stat().st_size}


@module.method
def plot(
    ctx: Context,
    file: File,
    x: Column,
    y: Column | Annotated[list[Column], Field(max_length=8)] | None = None,
    kind: charts.Kind = "line",
    aggregate: Aggregate | None = None,
    title: Annotated[str, Field(max_length=200)] = "",
    into: File = "plot.png",
    width: Annotated[float, Field(ge=2, le=30)] = 8,
    height: Annotated[float, Field(ge=2, le=30)] = 4.5,
) -> dict[str, Any]:
    """Draw columns of a table as a PNG.

    kind: line, bar, scatter, or hist (of x alone). aggregate: one point for each x, of all rows that have it; a bar
    chart without y counts rows. width, height: inches, at 144 points each. Of more than 20,000 points, evenly spaced
    ones are drawn.
    """
    path, picture = source(ctx.session, file), target(ctx.session, into, PICTURES)
    series = [y] if isinstance(y, str) else list(y or [])
    if not series and kind in ("line", "scatter"):
        raise ValueError(f"a {kind} chart needs y: one column or a list of columns")
    with connected(ctx) as connection, _table(connection, path):
        relation = connection.sql("FROM profiled")
        kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
        _known([x, *series], kinds)
        _numeric([x] if kind == "hist" else series if aggregate != "count" else [], kinds)
        across = f"({name(x)} AT TIME ZONE 'UTC')" if kinds[x] == "TIMESTAMP WITH TIME ZONE" else name(x)
        rows = connection.sql(_points(across, series if kind != "hist" else [], kind, aggregate)).fetchall()
    if not rows:
        raise ValueError("there is nothing to draw: no row has a value")
    points, *down = ([row[place] for row in rows] for place in range(len(rows[0])))
    drawn = (
        dict(zip(series, down, strict=False)) if series and kind != "hist" else {"rows": down[0] if down else points}
    )
    label = f"{aggregate} of {', '.join(series)}" if aggregate and series else ", ".join(series)
    heading = title or f"{label or 'rows'} by {x}"
    charts.save(charts.draw(kind, points, drawn, (x, label or "rows"), heading, (width, height)), picture)
    return {"into": relative(ctx.session, picture), "points": len(rows), "size": picture.stat().st_size}


class _table:  # noqa: N801 - reads as a word of the `with` line
    """The file as the view `profiled`, while this lasts."""

    def __init__(self, connection: Any, path: Any) -> None:
        self._connection, self._path = connection, path

    def __enter__(self) -> None:
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW profiled AS FROM {reader_of(self._path)}")

    def __exit__(self, *_: object) -> None:
        self._connection.execute("DROP VIEW IF EXISTS profiled")


def _points(across: str, series: list[str], kind: str, aggregate: Aggregate | None) -> str:
    """The query for what is drawn: x, then each series as numbers; in the order of x, bars in that of the file."""
    if kind == "hist":
        return f"SELECT x FROM (SELECT {across}::DOUBLE AS x FROM profiled) WHERE isfinite(x) LIMIT {MAX_COUNTED}"
    if aggregate or not series:
        function = FUNCTIONS[aggregate or "count"]
        values = ", ".join(f"{function}({name(column)})::DOUBLE" for column in series) or "count(*)::DOUBLE"
        order = "2 DESC" if kind == "bar" and not series else "1"
        grouped = f"SELECT {across} AS x, {values} FROM profiled WHERE {across} IS NOT NULL GROUP BY 1"
        return f"{grouped} ORDER BY {order} LIMIT {MAX_POINTS}"
    values = ", ".join(f"{name(column)}::DOUBLE AS {name(f'y{number}')}" for number, column in enumerate(series))
    plain = f"SELECT {across} AS x, {values} FROM profiled WHERE {across} IS NOT NULL"
    spaced = f"SELECT *, row_number() OVER () AS n, count(*) OVER () AS c FROM ({plain})"
    order = "" if kind == "bar" else "ORDER BY x"
    return f"SELECT * EXCLUDE (n, c) FROM ({spaced}) WHERE n % (c // {MAX_POINTS} + 1) = 0 {order}"


def _known(asked: list[str], there: Any) -> None:
    """ValueError that lists the columns, if one is asked for that is not there."""
    if missing := [column for column in asked if column not in there]:
        raise ValueError(f"there is no column {missing[0]!r}; there is: {', '.join(there)}")


def _numeric(columns: list[str], kinds: dict[str, str]) -> None:
    """ValueError for a column that cannot be drawn as numbers."""
    for column in columns:
        if not is_number(kinds[column]) and kinds[column] != "BOOLEAN":
            raise ValueError(f"column {column!r} is {kinds[column]}, and numbers are needed; to count rows: kind='bar'")


def _csv_options(delimiter: str | None, header: bool | None) -> str:
    options = f", delim={text(delimiter)}" if delimiter is not None else ""
    return options + (f", header={str(header).lower()}" if header is not None else "")


def _type(kind: str) -> str:
    """A type's name is written into the query, so it is held to what types are made of."""
    if not TYPE.fullmatch(kind) or kind.count("(") != kind.count(")"):
        raise ValueError(f"{kind!r} is no DuckDB type")
    return kind
