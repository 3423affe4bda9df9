"""Which runs are to be ended by the servers that have them: what one server asks of another."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from sqlalchemy import delete, exists, insert, select, text
from sqlalchemy.exc import IntegrityError

from dataproc.database.core import Database
from dataproc.database.tables import run_cancels, runs

_UNFINISHED = text("status IN ('queued', 'running')")
_UNDER_WAY = exists().where(runs.c.id == run_cancels.c.run_id, _UNFINISHED)


class Cancels:
    """What was asked, and not yet done."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ask(self, run_id: str) -> None:
        """Have a run ended by whoever has it. Asking twice is asking once."""
        with suppress(IntegrityError):
            await self._database.write(lambda connection: connection.execute(insert(run_cancels), {"run_id": run_id}))

    async def asked_of(self, node: str) -> list[str]:
        """Runs that this server is to end."""
        mine = select(run_cancels.c.run_id).join(runs, runs.c.id == run_cancels.c.run_id).where(runs.c.node == node)
        return await self._database.read(lambda connection: list(connection.scalars(mine)))

    async def done(self, run_ids: Collection[str]) -> None:
        """These are being ended, or have ended."""
        gone = delete(run_cancels).where(run_cancels.c.run_id.in_(run_ids))
        await self._database.write(lambda connection: connection.execute(gone))

    async def forget(self) -> None:
        """Take back what nobody can do any more: a server died first, and its runs were judged by another."""
        await self._database.write(lambda connection: connection.execute(delete(run_cancels).where(~_UNDER_WAY)))
