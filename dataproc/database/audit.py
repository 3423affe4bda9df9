"""The audit log: who did what to keys, tokens and sessions, when and from where. No secret ever stands in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, delete, insert, select

from dataproc.database.tables import audit, micros, moment
from dataproc.telemetry import audit as stream
from dataproc.types import Actor, Json

if TYPE_CHECKING:
    from dataproc.database.core import Database

_INSERT = insert(audit)


@dataclass(frozen=True, slots=True)
class Line:
    """One line. key and session: ids of what it was done to; details: what else belongs to the event."""

    id: int
    at: datetime
    event: str
    actor: str
    key: str | None
    session: str | None
    client: str | None
    request_id: str | None
    details: dict[str, Json]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: the newest `limit` of those that match, or those after the line `after`."""

    key: str | None = None
    session: str | None = None
    event: str | None = None
    actor: str | None = None
    since: datetime | None = None
    after: int | None = None
    limit: int = 100


class Audit:
    """Writes lines to the log stream at once, and to the table within a second; reads the table."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batch: list[dict[str, Any]] | None = None  # what the writer has not come for yet
        self._lock = Lock()

    def tell(
        self, event: str, by: Actor, *, key: str | None = None, session: str | None = None, **details: Json
    ) -> None:
        """Something was done. Never waits."""
        names = {"key": key, "session_id": session, "client": by.client, "request_id": by.request_id}
        stream.info(event, by=by.name, **{name: value for name, value in names.items() if value}, **details)
        row = {
            "at": micros(self._database.now()),
            "event": event,
            "actor": by.name,
            "key_id": key,
            "session_id": session,
            "client": by.client,
            "request_id": by.request_id,
            "details": json.dumps(details),
        }
        with self._lock:
            if self._batch is None:
                self._batch = []
                self._database.behind(self._writing(self._batch))
            self._batch.append(row)

    def _writing(self, batch: list[dict[str, Any]]) -> Callable[[Connection], None]:
        def write(connection: Connection) -> None:
            with self._lock:
                if self._batch is batch:
                    self._batch = None
            connection.execute(_INSERT, batch)

        return write

    async def find(self, wanted: Wanted) -> list[Line]:
        """Lines, oldest first."""
        query = select(audit)
        for column, value in (
            (audit.c.key_id, wanted.key),
            (audit.c.session_id, wanted.session),
            (audit.c.event, wanted.event),
            (audit.c.actor, wanted.actor),
        ):
            query = query if value is None else query.where(column == value)
        if wanted.since is not None:
            query = query.where(audit.c.at >= micros(wanted.since))
        newest = wanted.after is None
        query = query.order_by(audit.c.id.desc()) if newest else query.where(audit.c.id > wanted.after)
        query = (query if newest else query.order_by(audit.c.id)).limit(wanted.limit)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        return [_line(row) for row in (reversed(rows) if newest else rows)]

    async def forget(self, before: datetime, limit: int) -> int:
        """Delete old lines, at most `limit`; returns how many."""
        old = select(audit.c.id).where(audit.c.at < micros(before)).limit(limit)
        gone = delete(audit).where(audit.c.id.in_(old.scalar_subquery()))
        return await self._database.write(lambda connection: connection.execute(gone).rowcount)


def _line(row: Row[Any]) -> Line:
    return Line(
        id=row.id,
        at=moment(row.at),
        event=row.event,
        actor=row.actor,
        key=row.key_id,
        session=row.session_id,
        client=row.client,
        request_id=row.request_id,
        details=json.loads(row.details),
    )
