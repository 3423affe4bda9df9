"""PostgreSQL: connections that never hang, and how long its server may wait for what."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event, text

T = TypeVar("T")

CONNECT = 5  # seconds for a new connection
PAUSE = 1.0  # seconds after one that came to nothing in which no other is tried: a crowd would wait its turn
PING = 5.0  # seconds for a connection that lay idle to show that it is one still
STATEMENT = 30  # seconds that the server may work at a statement
ANSWER = STATEMENT + 5.0  # seconds after which a server that says nothing is taken for gone
IDLE = (
    60  # seconds after which it gives up a transaction that stands still: whoever began it is gone, its locks are not
)
_WAIT_STEP = 0.1  # psycopg's own


class Bounded(psycopg.Connection[Any]):
    """A connection that is lost when the server does not answer for `patience` seconds; None: it waits for it.

    The operating system would take minutes to notice that a machine is gone, and never notices a server that is stuck.
    """

    patience: float | None = PING

    def wait(self, gen: PQGen[T], interval: float = _WAIT_STEP, timeout: float | None = None) -> T:
        """Wait for the server's answer."""
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:  # an answer may still come: to nobody
                self.close()
            raise


def prepare(engine: Engine, lock_timeout: float) -> None:
    """Have the engine make such connections. lock_timeout: seconds for which a statement waits for another's lock."""
    limits = {
        "statement_timeout": STATEMENT * 1000,
        "lock_timeout": round(lock_timeout * 1000),
        "idle_in_transaction_session_timeout": IDLE * 1000,
    }
    silent_until = 0.0
    told = "; ".join(f"SET {name} = {value}" for name, value in limits.items()).encode()

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, args: list[Any], named: dict[str, Any]) -> Bounded:
        nonlocal silent_until
        if time.monotonic() < silent_until:
            raise psycopg.OperationalError("the server did not answer a moment ago")
        try:
            connection = Bounded.connect(*args, **{"connect_timeout": CONNECT, "application_name": "dataproc", **named})
        except psycopg.errors.ConnectionTimeout:
            silent_until = time.monotonic() + PAUSE
            raise
        connection.autocommit = True
        connection.execute(told)
        connection.autocommit = False
        return connection

    @event.listens_for(engine, "checkout")
    def _taken(connection: Bounded, _record: object, _proxy: object) -> None:
        connection.patience = ANSWER

    @event.listens_for(engine, "checkin")
    def _given_back(connection: Bounded | None, _record: object) -> None:
        if connection is not None:
            connection.patience = PING


@contextmanager
def alone(connection: Connection, number: int, wait: float) -> Iterator[None]:
    """Hold an advisory lock, and let statements take their time, until the transaction ends."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, Bounded)
    driver.patience = None
    try:
        connection.execute(text(f"SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = {round(wait * 1000)}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        yield
    finally:
        driver.patience = ANSWER
