"""DuckDB over the session's files: one connection a warm worker, which sees the session directory alone."""

# ruff: noqa: S608 - what goes into a query is quoted by `name` and `text`, and the sandbox is the wall
from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from dataproc import Context

from .files import find_table, reader_of, relative, tables

MEMORY = "1GiB"  # beyond it DuckDB spills to the work directory
THREADS = 4
UTC = "strftime({0} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%fZ')"
WORDS = re.compile(r"\"((?:[^\"]|\"\")+)\"|'[^']*'|([A-Za-z_]\w*)")
MISSING = re.compile(r"Table with name (.+?) does not exist")
MAX_WORDS = 2_000
READS = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})


@contextlib.contextmanager
def connected(ctx: Context) -> Iterator[duckdb.DuckDBPyConnection]:
    """The worker's connection, with the session directory as the current one, so that plain file names work in SQL."""
    spill = ctx.work / "duckdb"
    connection = ctx.cache.pop("duckdb", None) or _open(ctx.session.resolve(), spill)
    with contextlib.chdir(ctx.session):
        try:
            yield connection
        except BaseException:  # it may have been stopped in the middle of something
            connection.close()
            raise
    if spill.exists():  # the work directory is emptied after a run, and DuckDB would not make it again
        connection.close()
    else:
        ctx.cache["duckdb"] = connection


@contextlib.contextmanager
def tables_of(connection: duckdb.DuckDBPyConnection, session: Path, sql: str) -> Iterator[None]:
    """Each word of a query that is the stem of a file can be used as a table while this lasts."""
    faults: dict[str, str] = {}
    made = []
    for word in _words(sql):
        file = find_table(session, word)
        if file is None:
            continue
        try:
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {name(word)} AS SELECT * FROM {reader_of(file)}")
            made.append(word)
        except duckdb.Error as error:  # told only if the query needs that file
            faults[word] = f"{relative(session, file)} cannot be read: {str(error).partition(chr(10))[0]}"
    try:
        yield
    except duckdb.CatalogException as error:
        missing = MISSING.search(str(error))
        if missing is None:
            raise
        there = f"there is no table {missing[1]!r}; in the session there is: {tables(session)}"
        raise FileNotFoundError(faults.get(missing[1], there)) from None
    finally:
        for word in made:
            connection.execute(f"DROP VIEW IF EXISTS {name(word)}")


def one_query(connection: duckdb.DuckDBPyConnection, sql: str) -> str:
    """The text of the one statement that `sql` must hold; ValueError for more, or for one that changes something."""
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ValueError(f"sql must hold one statement, not {len(statements)}")
    if statements[0].type not in READS:
        kind = statements[0].type.name
        raise ValueError(f"sql must be a query, not {kind}; to write its result to a file, use `into`")
    return str(statements[0].query).strip().rstrip(";")


def columns_of(relation: duckdb.DuckDBPyRelation) -> list[dict[str, str]]:
    """Names and DuckDB types."""
    return [{"name": column, "type": str(kind)} for column, kind in zip(relation.columns, relation.types, strict=True)]


def rows_of(relation: duckdb.DuckDBPyRelation, limit: int) -> list[list[Any]]:
    """At most `limit` rows of plain values, in the relation's order."""
    columns = [name(column) for column in relation.columns]
    if any(str(kind) == "TIMESTAMP WITH TIME ZONE" for kind in relation.types) and len(set(columns)) == len(columns):
        shown = (
            UTC.format(column) + f" AS {column}" if str(kind) == "TIMESTAMP WITH TIME ZONE" else column
            for column, kind in zip(columns, relation.types, strict=True)
        )
        relation = relation.project(", ".join(shown))
    return [[plain(value) for value in row] for row in relation.limit(limit).fetchall()]


def plain(value: Any) -> Any:
    """Decimals as numbers and bytes as hexadecimal; the rest has a JSON form already."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    return value


def write(connection: duckdb.DuckDBPyConnection, query: str, target: Path) -> int:
    """Write a query's rows to a file in the format of its suffix, whole or not at all; the number of rows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        found = connection.execute(f"COPY (\n{query}\n) TO {text(part)} ({FORMATS[target.suffix.lower()]})").fetchone()
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return int(found[0]) if found else 0


FORMATS = {
    ".parquet": "FORMAT parquet, COMPRESSION zstd",
    ".csv": "FORMAT csv, HEADER true",
    ".tsv": "FORMAT csv, HEADER true, DELIMITER '\t'",
    ".json": "FORMAT json, ARRAY true",
    ".ndjson": "FORMAT json",
    ".jsonl": "FORMAT json",
}


def name(column: str) -> str:
    """An identifier of SQL."""
    return '"' + column.replace('"', '""') + '"'


def text(value: object) -> str:
    """A string of SQL."""
    return "'" + str(value).replace("'", "''") + "'"


def _open(session: Path, spill: Path) -> duckdb.DuckDBPyConnection:
    # Never at import: threads of a connection do not survive the fork of a worker.
    connection = duckdb.connect(
        config={
            "threads": min(THREADS, len(os.sched_getaffinity(0))),
            "memory_limit": MEMORY,
            "temp_directory": str(spill),
            "python_enable_replacements": False,  # a table's name is no Python variable
            "autoinstall_known_extensions": False,
        }
    )
    connection.execute(f"SET allowed_directories = [{text(f'{session}/')}]")
    connection.execute("SET TimeZone = 'UTC'; SET enable_external_access = false; SET lock_configuration = true")
    return connection


def _words(sql: str) -> list[str]:
    found = dict.fromkeys((quoted or "").replace('""', '"') or bare for quoted, bare in WORDS.findall(sql))
    return [word for word in found if word][:MAX_WORDS]
