"""A run as a row of `runs`, and a row as a run."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, insert, update

from dataproc.database.tables import maybe_micros, maybe_moment, micros, moment, runs
from dataproc.runs import Run, RunStatus, Usage

COLUMNS = tuple(column.name for column in runs.columns)
ROWS = 64  # in one statement: SQLite's module takes and gives the interpreter's lock once a statement
_MICROS = 1_000_000


def insert_all(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    """Add rows, each a tuple in the order of `COLUMNS`."""
    if connection.dialect.name != "sqlite":
        connection.execute(insert(runs), [dict(zip(COLUMNS, row, strict=True)) for row in rows])
        return
    for begin in range(0, len(rows), ROWS):
        some = rows[begin : begin + ROWS]
        connection.exec_driver_sql(_insert(len(some)), tuple(value for row in some for value in row))


@cache
def _insert(rows: int) -> str:
    one = f"({', '.join('?' * len(COLUMNS))})"
    return f"INSERT INTO runs ({', '.join(COLUMNS)}) VALUES {', '.join([one] * rows)}"  # noqa: S608 - our own names


def upsert(connection: Connection, row: tuple[Any, ...]) -> None:
    """Write a row over its earlier state, or anew."""
    values = dict(zip(COLUMNS, row, strict=True))
    if not connection.execute(update(runs).where(runs.c.id == values["id"]).values(values)).rowcount:
        insert_all(connection, [row])


def row_of(run: Run) -> tuple[Any, ...]:
    """The row, in the order of `COLUMNS`."""
    usage = run.usage
    return (
        run.id, run.key, run.session, run.module, run.module_version, run.method,
        json.dumps(run.params) if run.params else None,
        json.dumps(run.input) if run.input else None,
        json.dumps(run.output) if run.output else None,
        run.status.value, micros(run.created_at), maybe_micros(run.started_at), maybe_micros(run.ended_at),
        None if run.result is None else json.dumps(run.result),
        None if run.error is None else json.dumps(run.error),
        json.dumps(run.messages) if run.messages else None,
        None if run.progress is None else json.dumps(run.progress),
        None if run.changes is None else json.dumps(run.changes),
        run.log_bytes,
        *((None,) * 4 if usage is None else (
            round(usage.cpu_time * _MICROS), usage.peak_memory, usage.bytes_read, usage.bytes_written
        )),
        run.node, run.attempt, None if run.timeout is None else round(run.timeout * _MICROS),
        int(run.submitted), int(run.closes), run.request_id or None,
    )  # fmt: skip


def run_of(row: Row[Any]) -> Run:
    """The value of a whole row."""
    used = None
    if row.cpu_time is not None:
        used = Usage(row.cpu_time / _MICROS, row.peak_memory, row.bytes_read, row.bytes_written)
    return Run(
        id=row.id, key=row.key_id, session=row.session_id, module=row.module, module_version=row.module_version,
        method=row.method, params=_read(row.params) or {}, input=_read(row.input) or {},
        output=_read(row.output) or {}, status=RunStatus(row.status), created_at=moment(row.created_at),
        started_at=maybe_moment(row.started_at), ended_at=maybe_moment(row.ended_at), result=_read(row.result),
        error=_read(row.error), messages=tuple(_read(row.messages) or ()), progress=_read(row.progress),
        changes=_read(row.changes), usage=used, log_bytes=row.log_bytes, node=row.node, attempt=row.attempt,
        timeout=None if row.timeout is None else row.timeout / _MICROS, submitted=bool(row.submitted),
        closes=bool(row.closes), request_id=row.request_id or "",
    )  # fmt: skip


def _read(text: str | None) -> Any:
    return None if text is None else json.loads(text)
