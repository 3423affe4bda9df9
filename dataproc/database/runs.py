"""Records of runs: written before an id is answered, or behind where nobody was told of it."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Select, delete, select, text, update

from dataproc.database.core import Database
from dataproc.database.run_rows import insert_all, row_of, run_of, upsert
from dataproc.database.tables import NOT_COMPLETED, micros, runs
from dataproc.errors import NotFound
from dataproc.runs import Run, RunStatus, WasInterrupted, error_of, told_of
from dataproc.types import first_id_of

UNFINISHED = [status.value for status in RunStatus if not status.ended]
_UNFINISHED = text("status IN ('queued', 'running')")  # as the index says it


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs a list shows: of a session or else a key, in these states, of a module, older than `before`."""

    key: str | None = None
    session: str | None = None
    states: tuple[RunStatus, ...] = ()
    module: str | None = None
    before: str | None = None


Draft = Callable[[], Run]


class RunStore:
    """The records of runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: deque[Draft] = deque()
        self._late: dict[str, Run] = {}  # ends that the database did not take yet
        self._taken = True  # whether nothing is on its way to the writer that will take `_pending`
        self._batches = self._settled = 0  # visits of the writer asked for, and those known to be committed

    async def record(self, run: Run) -> None:
        """Write a new record; durable when this returns."""
        row = row_of(run)
        await self._database.write(lambda connection: insert_all(connection, [row]))

    async def begin(self, run: Run) -> None:
        """Write that a recorded run has its worker; durable when this returns."""
        assert run.started_at is not None
        values = {"status": run.status.value, "started_at": micros(run.started_at), "attempt": run.attempt}
        values |= {"node": run.node, "module_version": run.module_version}
        step = update(runs).where(runs.c.id == run.id).values(values)
        await self._database.write(lambda connection: connection.execute(step))

    async def finish(self, run: Run) -> None:
        """Write how a run stands, over its earlier record if it has one; durable when this returns."""
        row = row_of(run)
        await self._database.write(lambda connection: upsert(connection, row))

    def finish_late(self, run: Run) -> None:
        """The same as soon as the database answers again."""
        self._late[run.id] = run

        def write(connection: Connection) -> None:
            upsert(connection, row_of(run))
            if self._late.get(run.id) is run:
                self._late.pop(run.id)

        self._database.behind(write)

    async def add_changes(self, run_id: str, changes: dict[str, Any]) -> None:
        """Write the changes of a run that has ended, now that they are known better."""
        step = update(runs).where(runs.c.id == run_id).values(changes=json.dumps(changes))
        await self._database.write(lambda connection: connection.execute(step))

    def behind(self, draft: Draft) -> None:
        """Have the record of a run that has none yet written within a second. Costs the caller an append.

        draft: gives the record; it is called in the writer's thread, once, and must not take long.
        """
        self._pending.append(draft)
        if self._taken:
            self._taken = False
            self._batches += 1
            self._database.behind(_Batch(self).write)

    def take(self) -> list[Run]:
        """Take what waits to be written; for the writer alone."""
        self._taken = True  # before the runs: one that is appended later asks for a batch of its own
        return [self._pending.popleft()() for _ in range(len(self._pending))]

    async def settle(self) -> None:
        """Have what was written behind committed now: whoever asks for runs wants to see the last one too."""
        if (asked := self._batches) != self._settled:
            await self._database.write(lambda connection: None)  # what lies behind is committed with it
            self._settled = max(self._settled, asked)

    async def get(self, run_id: str) -> Run:
        """The record. Raises NotFound. The caller sees to it that it is the asker's own."""
        if (late := self._late.get(run_id)) is not None:
            return late
        await self.settle()
        row = await self._database.read(
            lambda connection: connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        )
        if row is None:
            raise NotFound("no such run")
        return run_of(row)

    async def page(self, wanted: Wanted, limit: int) -> list[Run]:
        """At most `limit` records, newest first, without params, results and changes."""
        await self.settle()
        query = _listing(wanted).limit(limit)
        return await self._database.read(lambda connection: [run_of(row) for row in connection.execute(query)])

    async def unfinished_nodes(self) -> set[str]:
        """The servers that runs are queued on or under way on, as far as the records say."""
        query = select(runs.c.node).where(_UNFINISHED).distinct()
        return await self._database.read(lambda connection: set(connection.scalars(query)))

    async def left_by(self, servers: Collection[str]) -> list[Run]:
        """Unfinished runs of these servers, oldest first."""
        query = select(runs).where(_UNFINISHED, runs.c.node.in_(servers)).order_by(runs.c.id)
        return await self._database.read(lambda connection: [run_of(row) for row in connection.execute(query)])

    async def adopt(self, run: Run, node: str, attempt: int) -> Run | None:
        """Make a submitted run that was left this node's, to be run; None where another was quicker."""
        claim = update(runs).where(runs.c.id == run.id, runs.c.node == run.node, runs.c.status == run.status.value)
        values = {"node": node, "status": RunStatus.QUEUED.value, "attempt": attempt, "started_at": None}
        done = await self._database.write(lambda connection: connection.execute(claim.values(values)).rowcount)
        return None if not done else run.requeued(node, attempt)

    async def interrupt(self, found: Iterable[Run]) -> list[Run]:
        """Judge runs that the end of their server left unfinished; those that nobody else judged before."""
        now, judged = self._database.now(), list(found)
        error = error_of(WasInterrupted())
        assert error is not None
        told = told_of(error)
        values = {"status": RunStatus.INTERRUPTED.value, "ended_at": micros(now), "error": json.dumps(told)}

        def work(connection: Connection) -> list[Run]:
            done = []
            for run in judged:
                step = update(runs).where(runs.c.id == run.id, runs.c.node == run.node, _UNFINISHED).values(values)
                if connection.execute(step).rowcount:
                    done.append(run.evolve(RunStatus.INTERRUPTED, ended_at=now, error=told))
            return done

        return await self._database.write(work)

    async def to_close(self, node: str) -> list[tuple[str, str]]:
        """Run and session of ended runs of this node whose session was to end after them."""
        due = select(runs.c.id, runs.c.session_id).where(
            text("closes = 1"), runs.c.node == node, runs.c.status.not_in(UNFINISHED)
        )
        return await self._database.read(lambda connection: [(row[0], row[1]) for row in connection.execute(due)])

    async def closed(self, run_id: str) -> None:
        """The session of a run that was to be ended after it has been."""
        step = update(runs).where(runs.c.id == run_id).values(closes=0)
        await self._database.write(lambda connection: connection.execute(step))

    async def forget(self, older_than: float, limit: int) -> int:
        """Delete records of runs that ended so many seconds ago, at most `limit`; returns how many."""
        before = self._database.now() - timedelta(seconds=older_than)
        old = (
            select(runs.c.id)
            .where(runs.c.id < first_id_of(before), runs.c.ended_at < micros(before))
            .order_by(runs.c.id)
            .limit(limit)
        )
        gone = delete(runs).where(runs.c.id.in_(old.scalar_subquery()))
        return await self._database.write(lambda connection: connection.execute(gone).rowcount)


_HEAVY = frozenset({"params", "input", "output", "result", "changes", "messages"})
_LIGHT = [column if column.name not in _HEAVY else text(f"NULL AS {column.name}") for column in runs.columns]


def _listing(wanted: Wanted) -> Select[Any]:
    query = select(*_LIGHT).select_from(runs).order_by(runs.c.id.desc())
    if wanted.session is not None:
        query = query.where(runs.c.session_id == wanted.session)
    elif wanted.key is not None:
        query = query.where(runs.c.key_id == wanted.key)
    if wanted.module is not None:
        query = query.where(runs.c.module == wanted.module)
    if wanted.before is not None:
        query = query.where(runs.c.id < wanted.before)
    states = [state.value for state in wanted.states]
    if states and RunStatus.COMPLETED not in wanted.states:
        query = query.where(text(NOT_COMPLETED))
    if states:
        query = query.where(runs.c.status == states[0] if len(states) == 1 else runs.c.status.in_(states))
    return query


class _Batch:
    """One visit of the writer. It keeps what it took, because the writer comes again where a commit failed."""

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._rows: list[tuple[Any, ...]] = []

    def write(self, connection: Connection) -> None:
        for row in self._rows:  # a commit whose answer was lost on its way may have been done
            upsert(connection, row)
        fresh = [row_of(run) for run in self._store.take()]
        if fresh:
            insert_all(connection, fresh)
        self._rows += fresh
