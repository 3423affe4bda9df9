"""Leases of sessions, as rows that all nodes see. Implements `dataproc.storage.object_store.leases.Leases`."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, String, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from dataproc.database.core import Database
from dataproc.database.tables import leases, micros
from dataproc.types import Dropped, Elsewhere, Lease

_WANTED: ColumnElement[str] = bindparam("wanted", type_=String)
_MINE = (leases.c.session_id == _WANTED, leases.c.fence == bindparam("number", type_=BigInteger))
_HELD = (*_MINE, leases.c.holder == bindparam("me", type_=String))
_ROW = select(leases).where(leases.c.session_id == _WANTED)
_ROW_TO_TAKE = _ROW.with_for_update()
_RENEW = update(leases).where(*_HELD).values(expires_at=bindparam("until"))
_COMMIT = update(leases).where(*_HELD).values(revision=bindparam("named"))
_PUBLISH = update(leases).where(*_HELD).values(published=bindparam("named"))
_RELEASE = update(leases).where(*_HELD).values(holder=None, expires_at=0)
_TAKE = (
    update(leases)
    .where(leases.c.session_id == _WANTED)
    .values(
        holder=bindparam("me"),
        node=bindparam("name"),
        url=bindparam("where"),
        fence=bindparam("number"),
        expires_at=bindparam("until"),
    )
)


class DatabaseLeases:
    """The leases that one life of a node has. `url`: where other nodes reach it."""

    def __init__(self, database: Database, duration: float, node: str, url: str | None) -> None:
        self.duration = duration
        self._database = database
        self._node = node
        self._url = url
        self._me = uuid.uuid4().hex  # not the node's name: what an earlier life of it had is not this one's

    async def take(self, session_id: str) -> Lease | Elsewhere | Dropped:
        """Take a session that nobody has, or go on having it."""
        asked = self._database.clock.monotonic()
        try:
            return await self._database.write(lambda connection: self._take(connection, session_id, asked))
        except IntegrityError:  # another node made the row in the same moment
            return await self._database.write(lambda connection: self._take(connection, session_id, asked))

    def _take(self, connection: Connection, session_id: str, asked: float) -> Lease | Elsewhere | Dropped:
        now = self._now()
        until = now + micros_of(self.duration)
        row = connection.execute(_ROW_TO_TAKE, {"wanted": session_id}).one_or_none()
        if row is None:
            connection.execute(insert(leases), [self._fresh(session_id, until)])
            return Lease(1, None, None, asked + self.duration)
        if row.dropped_at is not None:
            return Dropped(session_id, (now - row.dropped_at) / 1e6)
        if (there := self._elsewhere(row, now)) is not None:
            return there
        fence = row.fence + (row.holder != self._me)
        taken = {"wanted": session_id, "me": self._me, "name": self._node, "where": self._url, "number": fence}
        connection.execute(_TAKE, {**taken, "until": until})
        return Lease(fence, row.revision, row.published, asked + self.duration)

    def _fresh(self, session_id: str, until: int) -> dict[str, Any]:
        named = {"session_id": session_id, "holder": self._me, "node": self._node, "url": self._url}
        return {**named, "fence": 1, "expires_at": until}

    def _elsewhere(self, row: Any, now: int) -> Elsewhere | None:
        # what an earlier life of this node had is free at once: the node's name is locked, so that life is over
        if row.holder in (None, self._me) or row.node == self._node or row.expires_at <= now:
            return None
        return Elsewhere(row.node, row.url, (row.expires_at - now) / 1e6)

    async def find(self, session_id: str) -> Elsewhere | None:
        """Who else has a session."""
        row = await self._database.read(
            lambda connection: connection.execute(_ROW, {"wanted": session_id}).one_or_none()
        )
        return None if row is None else self._elsewhere(row, self._now())

    async def revision(self, session_id: str) -> str | None:
        """What the files of a session are now, whoever has it; None where it has none."""
        row = await self._database.read(
            lambda connection: connection.execute(_ROW, {"wanted": session_id}).one_or_none()
        )
        return None if row is None else row.revision

    async def renew(self, held: dict[str, int]) -> dict[str, float]:
        """Go on having these, by their numbers; those that were not lost, with their new `until`."""
        until = self._database.clock.monotonic() + self.duration
        expiry = self._now() + micros_of(self.duration)

        def work(connection: Connection) -> dict[str, float]:
            said = [(each, {**self._mine(each, fence), "until": expiry}) for each, fence in held.items()]
            return {each: until for each, mine in said if connection.execute(_RENEW, mine).rowcount}

        return await self._database.write(work) if held else {}

    async def commit(self, session_id: str, fence: int, revision: str) -> bool:
        """Make a revision the current one; whether the number still counts."""
        said = {**self._mine(session_id, fence), "named": revision}
        return await self._database.write(lambda connection: connection.execute(_COMMIT, said).rowcount == 1)

    async def publish(self, session_id: str, fence: int, revision: str) -> bool:
        """Note that a revision was copied to plain names; whether the number still counts."""
        said = {**self._mine(session_id, fence), "named": revision}
        return await self._database.write(lambda connection: connection.execute(_PUBLISH, said).rowcount == 1)

    async def release(self, held: dict[str, int]) -> None:
        """Let others have these at once."""
        said = [self._mine(each, fence) for each, fence in held.items()]
        if said:
            await self._database.write(lambda connection: connection.execute(_RELEASE, said).rowcount)

    async def drop(self, session_id: str) -> None:
        """Let nobody have a session any more: its files are to be deleted."""
        try:
            await self._database.write(lambda connection: self._drop(connection, session_id))
        except IntegrityError:  # another node made the row in the same moment
            await self._database.write(lambda connection: self._drop(connection, session_id))

    def _drop(self, connection: Connection, session_id: str) -> None:
        row = connection.execute(_ROW_TO_TAKE, {"wanted": session_id}).one_or_none()
        gone = {"holder": None, "node": "", "url": None, "revision": None, "published": None, "expires_at": 0}
        if row is None:
            connection.execute(
                insert(leases), [{**gone, "session_id": session_id, "fence": 1, "dropped_at": self._now()}]
            )
        elif row.dropped_at is None:
            values = {**gone, "fence": row.fence + 1, "dropped_at": self._now()}
            connection.execute(update(leases).where(leases.c.session_id == session_id).values(values))

    async def dropped(self) -> list[Dropped]:
        """Sessions whose files have not all been deleted for sure."""
        dropped = select(leases.c.session_id, leases.c.dropped_at).where(leases.c.dropped_at.is_not(None))
        rows = await self._database.read(lambda connection: connection.execute(dropped).all())
        return [Dropped(row.session_id, (self._now() - row.dropped_at) / 1e6) for row in rows]

    async def forget(self, session_id: str) -> None:
        """Nothing is left of a dropped session."""
        gone = delete(leases).where(leases.c.session_id == session_id, leases.c.dropped_at.is_not(None))
        await self._database.write(lambda connection: connection.execute(gone).rowcount)

    def _mine(self, session_id: str, fence: int) -> dict[str, Any]:
        return {"wanted": session_id, "number": fence, "me": self._me}

    def _now(self) -> int:
        return micros(self._database.now())


def micros_of(seconds: float) -> int:
    """A duration as the tables have it."""
    return timedelta(seconds=seconds) // timedelta(microseconds=1)
