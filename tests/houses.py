"""One server's keys, credentials and sessions on a database, for tests that need no more of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from dataproc.access import Authenticator, Credentials, Keys, NewKey
from dataproc.clock import ManualClock
from dataproc.database import Database, RunStore
from dataproc.sessions import Opened, Sessions
from dataproc.settings import Settings
from dataproc.types import Principal


class House:
    """What one server sees of a database."""

    def __init__(self, database: Database, clock: ManualClock, settings: Settings) -> None:
        self.database, self.clock, self.settings = database, clock, settings
        self.keys = Keys(database)
        self.authenticator = Authenticator(database, settings)
        self.sessions = Sessions(database, settings, "node")
        self.runs = RunStore(database)

    async def who(self, **credentials: str) -> Principal:
        """Authenticate with these."""
        return await self.authenticator.authenticate(Credentials(**credentials))

    async def caller(self, key: NewKey) -> Principal:
        """Authenticate with that key."""
        return await self.who(api_key=key.apikey, secret=key.secret)

    async def opened(self, name: str = "a", **options: object) -> tuple[Principal, Opened]:
        """A caller with a fresh key of that name, and a session of its own."""
        principal = await self.caller(await self.keys.create(name))
        return principal, await self.sessions.open(principal, **options)  # type: ignore[arg-type]


@asynccontextmanager
async def open_house(where: Path | str, clock: ManualClock | None = None, **settings: object) -> AsyncIterator[House]:
    """A server's view of a database by its URL, or of `x.db` in a folder; any number of them may be open."""
    clock = clock or ManualClock()
    database = await Database.open(where if isinstance(where, str) else f"sqlite:///{where}/x.db", clock)
    try:
        yield House(database, clock, Settings(**settings, _env_file=None))  # type: ignore[arg-type]
    finally:
        await database.close()
