"""Which servers use this database, and when each was last known to live."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select, update

from dataproc.database.core import Database
from dataproc.database.tables import micros, nodes

_SIGNS = select(nodes.c.name, nodes.c.beat_at)


class Nodes:
    """The servers' signs of life."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard: dict[str, tuple[int, float]] = {}  # the last sign of each, and when it was new, by our clock

    async def beat(self, name: str) -> None:
        """This server lives."""
        now = micros(self._database.now())

        def work(connection: Connection) -> None:
            step = update(nodes).where(nodes.c.name == name).values(beat_at=now)
            if not connection.execute(step).rowcount:
                connection.execute(insert(nodes), {"name": name, "beat_at": now})

        await self._database.write(work)

    async def dead(self, servers: Iterable[str], silence: float) -> set[str]:
        """Those of the servers that have left, or gave no new sign for so many seconds while this one watched.

        Clocks of servers are not compared: they may jump.
        """
        found = await self._database.read(
            lambda connection: {row.name: row.beat_at for row in connection.execute(_SIGNS)}
        )
        now = self._database.clock.monotonic()
        for name, sign in found.items():
            if self._heard.get(name, (None, 0.0))[0] != sign:
                self._heard[name] = sign, now
        return {name for name in servers if name not in found or now - self._heard[name][1] > silence}

    async def leave(self, name: str) -> None:
        """This server is about to stop: what it leaves may be taken up at once."""
        await self._database.write(lambda connection: connection.execute(delete(nodes).where(nodes.c.name == name)))
