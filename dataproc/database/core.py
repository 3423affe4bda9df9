"""The database as the rest of the house sees it: read, write, write behind, and what time it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TypeVar, cast

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import DBAPIError

from dataproc.clock import Clock
from dataproc.database.audit import Audit
from dataproc.database.connect import READERS, UnusableDatabase, open_engine, reason, unavailable, unkeepable, view
from dataproc.database.fresh import Gone
from dataproc.database.schema import migrate
from dataproc.database.use import Use
from dataproc.database.writer import Writer
from dataproc.errors import StorageUnavailable

T = TypeVar("T")


class Database:
    """Made by `Database.open`. Its works are plain functions of a SQLAlchemy connection, run in its threads.

    Everything may raise StorageUnavailable: the database is locked for long, full, or gone.
    `gone` has the ids of sessions, tokens and keys that this process ended lately, `use` the sessions that it has in
    use; `audit` is the audit log.
    """

    def __init__(self, engine: Engine, clock: Clock, started: datetime) -> None:
        self.clock = clock
        self.gone = Gone()
        self.use = Use(self)
        self.audit = Audit(self)
        self._engine = engine
        self._view = view(engine)
        self._started = started
        self._started_ticks = clock.monotonic()
        self._writer = Writer(engine)
        self._readers = ThreadPoolExecutor(READERS, "dataproc-database-reader")
        self._closed = False

    @classmethod
    async def open(cls, url: str, clock: Clock, *, fsync: bool = False, busy_timeout: float = 5.0) -> Database:
        """Connect, and bring the tables to this release's version under a lock.

        url: of SQLAlchemy. fsync: whether commits survive a power cut (SQLite; other databases have settings of their
        own). busy_timeout: seconds for which a write waits for another process's.
        Raises NewerSchemaError, UnusableDatabase, StorageUnavailable; the two last say what the database says.
        """
        engine = open_engine(url, fsync, busy_timeout)
        try:
            started = await asyncio.to_thread(_prepare, engine, clock)
        except DBAPIError as error:
            engine.dispose()
            if unavailable(error):
                raise StorageUnavailable(f"the database does not answer: {reason(url, error)}") from error
            raise UnusableDatabase(f"the database refuses: {reason(url, error)}") from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine, clock, started)

    def now(self) -> datetime:
        """The time that lives are measured by: the database's clock at the start, carried on by the monotonic one.

        So a jump of the wall clock neither ends nor revives anything while the server runs.
        """
        return self._started + timedelta(seconds=self.clock.monotonic() - self._started_ticks)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """What `work` finds, in a reader thread, in one consistent view."""
        if self._closed:
            raise StorageUnavailable("the server is stopping")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._view.connect() as connection:
                return work(connection)
        except Exception as error:
            if told := unavailable(error) or unkeepable(error):
                raise told from error
            raise

    async def write(self, work: Callable[[Connection], T]) -> T:
        """What `work` returns, once it is committed. An error of its own undoes it alone."""
        return cast(T, await self._writer.write(work))

    def behind(self, work: Callable[[Connection], object]) -> None:
        """Have `work` committed within a second; called again where the database did not take it."""
        self._writer.behind(work)

    async def close(self) -> None:
        """Write what is left and disconnect."""
        self._closed = True
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        self._engine.dispose()


def _prepare(engine: Engine, clock: Clock) -> datetime:
    migrate(engine)
    if engine.dialect.name == "sqlite":
        return clock.now()  # its clock is this machine's
    with engine.connect() as connection:
        found: datetime = connection.execute(select(func.now())).scalar_one()
    return found.astimezone(UTC)  # in a zone of its own, durations would be those of clocks on walls
