"""The one thread that writes: what queues up while a commit runs is committed together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.engine.interfaces import DBAPICursor

from dataproc.database.connect import BEGIN, collided, unavailable
from dataproc.errors import StorageUnavailable

BATCH = 256  # works in one transaction
DELAY = 0.5  # seconds for which a work that nobody waits for may lie
CROWD = 512  # so many of them do not wait that long
TRIES = 5  # of a transaction that collides with another server's
BACKLOG = 20_000  # works kept while the database does not answer; beyond, the oldest are dropped

Work = Callable[[Connection], Any]
_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Item:
    """A piece of work, and where its caller waits for it."""

    work: Work
    waiter: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        """Tell the caller, on its own loop; one that has gone is not told."""
        if self.waiter.done():
            return
        if self.error is None:
            self.waiter.set_result(self.result)
        else:
            self.waiter.set_exception(self.error)


class Writer:
    """Runs works on one connection, each in its own savepoint, many in one transaction."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._items: deque[Item] = deque()
        self._behind: deque[Work] = deque()
        self._due: float | None = None
        self._closing = False
        self._wake = Condition()
        self._done: Future[None] = Future()
        self._thread = Thread(target=self._run, name="dataproc-database-writer", daemon=True)
        self._thread.start()

    async def write(self, work: Work) -> Any:
        """Run `work` durably; its result when it is committed, its error when it alone was rolled back."""
        item = Item(work, asyncio.get_running_loop().create_future())
        with self._wake:
            if self._closing:
                raise StorageUnavailable("the server is stopping")
            self._items.append(item)
            self._wake.notify()
        return await item.waiter

    def behind(self, work: Work) -> None:
        """Run `work` soon. It is called again where the database did not take it, so it must bear that."""
        self._behind.append(work)
        crowded = len(self._behind) == CROWD
        if self._due is None or crowded:
            with self._wake:
                self._due = time.monotonic() + (0 if crowded else DELAY)
                self._wake.notify()

    async def close(self) -> None:
        """Write what is left, and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.wrap_future(self._done)
        self._thread.join()

    # -------------------------------------------------------------------------------------------- in the thread

    def _run(self) -> None:
        while self._wait():
            items = [self._items.popleft() for _ in range(min(len(self._items), BATCH))]
            self._due = None  # before the works are taken: one that comes later sets it again
            behind = [self._behind.popleft() for _ in range(min(len(self._behind), BATCH))]
            self._commit(items, behind)
            if self._behind and self._due is None:
                self._due = time.monotonic()  # more than a batch holds
        self._done.set_result(None)

    def _wait(self) -> bool:
        """Wait for something to do; False when there is nothing left and never will be."""
        with self._wake:
            while not self._items:
                if self._closing:
                    return bool(self._behind)
                rest = None if self._due is None else self._due - time.monotonic()
                if rest is not None and rest <= 0:
                    return True
                self._wake.wait(rest)
        return True

    def _commit(self, items: list[Item], behind: list[Work]) -> None:
        try:
            for left in reversed(range(TRIES)):
                try:
                    self._transact(items, behind)
                    break
                except Exception as error:
                    if not (left and collided(error)):
                        raise
        except Exception as error:
            told = unavailable(error)
            for item in items:
                item.error = told or error
            if told or behind:
                self._keep(behind, error)
        _settle(items)

    def _transact(self, items: list[Item], behind: list[Work]) -> None:
        with (
            self._engine.connect().execution_options(**{BEGIN: "BEGIN IMMEDIATE"}) as connection,
            connection.begin(),
        ):
            if len(items) == 1 and not behind:
                items[0].result = items[0].work(connection)  # the transaction is its savepoint
            else:
                _run_each(connection, items, behind)

    def _keep(self, behind: list[Work], error: Exception) -> None:
        """Put works back that nobody waits for, unless nobody will ever come for them."""
        _log.error("database_write_failed", error=str(error.__cause__ or error), behind=len(self._behind) + len(behind))
        if self._closing:
            self._behind.clear()
            return
        self._behind.extendleft(reversed(behind))
        while len(self._behind) > BACKLOG:
            self._behind.popleft()
        if behind:
            self._due = time.monotonic() + DELAY


def _run_each(connection: Connection, items: list[Item], behind: list[Work]) -> None:
    for item in items:
        _run_alone(connection, item)
    for work in behind:
        _run_quietly(connection, work)


def _run_alone(connection: Connection, item: Item) -> None:
    """Run one work so that its failure undoes nothing of its neighbours."""
    try:
        with _savepoint(connection):
            item.result, item.error = item.work(connection), None
    except Exception as error:
        if told := unavailable(error):
            raise told from error
        item.error = error


def _run_quietly(connection: Connection, work: Work) -> None:
    try:
        with _savepoint(connection):
            work(connection)
    except Exception as error:
        if unavailable(error):
            raise
        _log.error("database_write_behind_failed", exc_info=error)


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Undo what the block did where it raises.

    Said to the driver itself: SQLAlchemy's own savepoints take longer than many a work.
    """
    cursor = connection.connection.cursor()
    try:
        _say(cursor, "SAVEPOINT work")
        try:
            yield
        except BaseException:
            _say(cursor, "ROLLBACK TO SAVEPOINT work")
            _say(cursor, "RELEASE SAVEPOINT work")
            raise
        _say(cursor, "RELEASE SAVEPOINT work")
    finally:
        cursor.close()


def _say(cursor: DBAPICursor, statement: str) -> None:
    try:
        cursor.execute(statement)
    except Exception as error:  # the transaction is lost, with all that is in it
        raise StorageUnavailable("the database does not answer; try again") from error


def _settle(items: list[Item]) -> None:
    """Wake the callers, all of one loop by one call."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Item]] = {}
    for item in items:
        by_loop.setdefault(item.waiter.get_loop(), []).append(item)
    for loop, group in by_loop.items():
        with suppress(RuntimeError):  # that loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(_settle_all, group)


def _settle_all(items: list[Item]) -> None:
    for item in items:
        item.settle()
