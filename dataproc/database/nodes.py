"""Which servers use this database, and when each was last known to live."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, update

from dataproc.database.core import Database
from dataproc.database.tables import micros, nodes


class Nodes:
    """The servers' signs of life."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def beat(self, name: str) -> None:
        """This server lives."""
        now = micros(self._database.now())

        def work(connection: Connection) -> None:
            step = update(nodes).where(nodes.c.name == name).values(beat_at=now)
            if not connection.execute(step).rowcount:
                connection.execute(insert(nodes), {"name": name, "beat_at": now})

        await self._database.write(work)

    async def leave(self, name: str) -> None:
        """This server is about to stop: what it leaves may be taken up at once."""
        await self._database.write(lambda connection: connection.execute(delete(nodes).where(nodes.c.name == name)))
