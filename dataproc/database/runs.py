"""Records of runs: written before an id is answered, or behind where nobody was told of it."""

from __future__ import annotations

import json
from collections import deque
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from dataproc.database.core import Database
from dataproc.database.tables import maybe_micros, maybe_moment, micros, moment, runs
from dataproc.errors import NotFound
from dataproc.runs import Run, RunStatus, WasInterrupted, error_of

UNFINISHED = [status.value for status in RunStatus if not status.ended]


class RunStore:
    """The records of runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: deque[Run] = deque()
        self._taken = True  # whether nothing is on its way to the writer that will take `_pending`

    async def record(self, run: Run) -> None:
        """Write a new record; durable when this returns."""
        await self._database.write(lambda connection: connection.execute(insert(runs), [_row(run)]))

    async def finish(self, run: Run) -> None:
        """Write how a run stands, over its earlier record if it has one; durable when this returns."""
        await self._database.write(lambda connection: _upsert(connection, _row(run)))

    def behind(self, run: Run) -> None:
        """Have the record of a run that has none yet written within a second. Costs the caller an append."""
        self._pending.append(run)
        if self._taken:
            self._taken = False
            self._database.behind(_Batch(self).write)

    def take(self) -> list[Run]:
        """Take what waits to be written; for the writer alone."""
        self._taken = True  # before the runs: one that is appended later asks for a batch of its own
        return [self._pending.popleft() for _ in range(len(self._pending))]

    async def get(self, run_id: str) -> Run:
        """The record. Raises NotFound. The caller sees to it that it is the asker's own."""
        row = await self._database.read(
            lambda connection: connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        )
        if row is None:
            raise NotFound("no such run")
        return _run(row)

    async def interrupt_running(self, node: str) -> int:
        """Judge the runs of this node that an earlier life of it left unfinished; for the start. Returns how many."""
        now = micros(self._database.now())
        changes = {"status": RunStatus.INTERRUPTED.value, "ended_at": now, "error": json.dumps(_interruption())}
        unfinished = update(runs).where(runs.c.node == node, runs.c.status.in_(UNFINISHED)).values(changes)
        return await self._database.write(lambda connection: connection.execute(unfinished).rowcount)

    async def forget(self, older_than: float, limit: int) -> int:
        """Delete records of runs that ended so many seconds ago, at most `limit`; returns how many."""
        before = micros(self._database.now() - timedelta(seconds=older_than))
        old = select(runs.c.id).where(runs.c.ended_at < before).limit(limit)
        gone = delete(runs).where(runs.c.id.in_(old.scalar_subquery()))
        return await self._database.write(lambda connection: connection.execute(gone).rowcount)


class _Batch:
    """One visit of the writer. It keeps what it took, because the writer comes again where a commit failed."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._rows: list[dict[str, Any]] = []

    def write(self, connection: Connection) -> None:
        self._rows.extend(_row(run) for run in self._store.take())
        if self._rows:
            connection.execute(insert(runs), self._rows)


def _interruption() -> dict[str, Any]:
    error = error_of(WasInterrupted())
    assert error is not None
    return {"code": error.code, "message": error.message, "data": error.members()}


def _upsert(connection: Connection, row: dict[str, Any]) -> None:
    changed = connection.execute(update(runs).where(runs.c.id == row["id"]).values(row))
    if not changed.rowcount:
        connection.execute(insert(runs), [row])


def _row(run: Run) -> dict[str, Any]:
    return {
        "id": run.id,
        "key_id": run.key,
        "session_id": run.session,
        "module": run.module,
        "module_version": run.module_version,
        "method": run.method,
        "params": json.dumps(run.params),
        "input": json.dumps(run.input),
        "output": json.dumps(run.output),
        "status": run.status.value,
        "created_at": micros(run.created_at),
        "started_at": maybe_micros(run.started_at),
        "ended_at": maybe_micros(run.ended_at),
        "result": json.dumps(run.result),
        "error": None if run.error is None else json.dumps(run.error),
        "log_bytes": run.log_bytes,
        "node": run.node,
    }


def _run(row: Row[Any]) -> Run:
    return Run(
        id=row.id,
        key=row.key_id,
        session=row.session_id,
        module=row.module,
        module_version=row.module_version,
        method=row.method,
        params=json.loads(row.params),
        input=json.loads(row.input),
        output=json.loads(row.output),
        status=RunStatus(row.status),
        created_at=moment(row.created_at),
        started_at=maybe_moment(row.started_at),
        ended_at=maybe_moment(row.ended_at),
        result=json.loads(row.result),
        error=None if row.error is None else json.loads(row.error),
        log_bytes=row.log_bytes,
        node=row.node,
    )
