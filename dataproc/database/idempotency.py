"""Idempotency keys: which call a key was first seen with, and the run that it led to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from dataproc.database.core import Database
from dataproc.database.run_rows import insert_all, row_of
from dataproc.database.tables import idempotency_keys, micros
from dataproc.runs import Run

MOST = 255  # characters of a key


@dataclass(frozen=True, slots=True)
class Claim:
    """A key as its caller gave it. scope: the session, or the caller's key; digest: SHA-256 of the call's arguments."""

    scope: str
    name: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Claimed:
    """A key that is known: the digest that it came with, and its run."""

    digest: bytes
    run: str


class IdempotencyKeys:
    """The keys of this database. A key older than `life` seconds is unknown."""

    def __init__(self, database: Database, life: float) -> None:
        self._database = database
        self._life = timedelta(seconds=life)

    async def find(self, claim: Claim) -> Claimed | None:
        """What the key was first seen with; None for a new one."""
        return await self._database.read(lambda connection: self._find(connection, claim))

    async def claim(self, claim: Claim, run: Run) -> Claimed | None:
        """Write key and record together, durable when this returns; what stands there where the key is known."""
        row = row_of(run)
        try:
            return await self._database.write(lambda connection: self._claim(connection, claim, run.id, row))
        except IntegrityError:  # another server was quicker
            return await self.find(claim)

    def _claim(self, connection: Connection, claim: Claim, run: str, row: tuple[object, ...]) -> Claimed | None:
        if (known := self._find(connection, claim)) is not None:
            return known
        table, now = idempotency_keys, self._database.now()
        connection.execute(delete(table).where(table.c.scope == claim.scope, table.c.name == claim.name))
        values = {"scope": claim.scope, "name": claim.name, "digest": claim.digest, "run_id": run}
        connection.execute(insert(table), {**values, "created_at": micros(now)})
        insert_all(connection, [row])
        return None

    def _find(self, connection: Connection, claim: Claim) -> Claimed | None:
        table, oldest = idempotency_keys, micros(self._database.now() - self._life)
        query = select(table.c.digest, table.c.run_id).where(
            table.c.scope == claim.scope, table.c.name == claim.name, table.c.created_at > oldest
        )
        row = connection.execute(query).one_or_none()
        return None if row is None else Claimed(row.digest, row.run_id)

    async def release(self, claim: Claim, run_id: str) -> None:
        """Make a key unknown again: its call was refused before it began."""
        table = idempotency_keys
        mine = delete(table).where(table.c.scope == claim.scope, table.c.name == claim.name, table.c.run_id == run_id)
        await self._database.write(lambda connection: connection.execute(mine))

    async def forget(self, limit: int) -> int:
        """Delete keys that have expired, at most `limit`; returns how many."""
        table, oldest = idempotency_keys, micros(self._database.now() - self._life)
        old = select(table.c.created_at).where(table.c.created_at <= oldest).order_by(table.c.created_at).limit(limit)
        found = await self._database.read(lambda connection: list(connection.execute(old).scalars()))
        if not found:
            return 0
        gone = delete(table).where(table.c.created_at <= found[-1])
        return await self._database.write(lambda connection: connection.execute(gone).rowcount)
