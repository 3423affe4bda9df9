"""Engines: how a database is reached, and which of its failures mean that it does not answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    DisconnectionError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dataproc.errors import StorageUnavailable

READERS = 4
BEGIN = "dataproc_begin"  # execution option: how SQLite begins this connection's transactions

_COLLISIONS = ("40001", "40P01")  # PostgreSQL's serialization failure, and deadlock


class UnusableDatabase(ValueError):
    """A database that the settings name and no server can use: what is wrong, for its operator, without a password."""


def open_engine(url: str, fsync: bool, busy_timeout: float) -> Engine:
    """The engine of `url`, with as many connections as there are threads that use it; connects to nothing yet.

    busy_timeout: seconds for which a write waits for another process's.
    Raises UnusableDatabase for a URL of none, or of one that several threads cannot share.
    """
    parsed = _parse(url)
    # parameters are hidden from errors, because errors are logged and parameters hold what callers sent
    options: dict[str, Any] = {"pool_size": READERS + 1, "max_overflow": 1, "hide_parameters": True}
    if parsed.get_backend_name() == "postgresql":
        return _open_postgresql(parsed, busy_timeout, options)
    if parsed.database in (None, "", ":memory:"):
        raise UnusableDatabase(
            "an SQLite database in memory cannot be shared by threads: name a file, as sqlite:////path/x.db"
        )
    assert parsed.database is not None
    _make_private(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": busy_timeout, "check_same_thread": False}, **options)
    _prepare_sqlite(engine, fsync)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # whose texts quote parts of the URL
        raise UnusableDatabase(
            "DATAPROC_DATABASE_URL is no URL; in a password write %40 for @, %3A for :, %2F for / and %25 for %"
        ) from None
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg"):
        raise UnusableDatabase(
            "DATAPROC_DATABASE_URL names neither SQLite nor PostgreSQL: it begins with sqlite:// or postgresql+psycopg://"
        )
    return parsed


def _open_postgresql(url: URL, busy_timeout: float, options: dict[str, Any]) -> Engine:
    try:
        from dataproc.database import postgresql
    except ImportError as missing:
        raise UnusableDatabase(f"PostgreSQL needs its driver: pip install 'dataproc[postgresql]' ({missing})") from None
    engine = create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, **options)
    postgresql.prepare(engine, busy_timeout)
    return engine


def shown(url: str) -> str:
    """The URL without what may be secret."""
    return _parse(url).set(query={}).render_as_string(hide_password=True)


def reason(url: str, error: DBAPIError) -> str:
    """What the database itself says, in a line."""
    said, password = " ".join(str(error.orig).split()), _parse(url).password
    return said.replace(password, "***") if password else said


def view(engine: Engine) -> Engine:
    """The engine, for transactions that see one state of the database from their beginning to their end."""
    return engine if engine.dialect.name == "sqlite" else engine.execution_options(isolation_level="REPEATABLE READ")


def _make_private(file: Path) -> None:
    """Make the file before SQLite does: it gives its own mode to the journals beside it."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageUnavailable(f"the database file cannot be opened: {error.strerror}") from error


def _prepare_sqlite(engine: Engine, fsync: bool) -> None:
    pragmas = ("journal_mode=WAL", f"synchronous={'FULL' if fsync else 'NORMAL'}", "foreign_keys=ON")

    @event.listens_for(engine, "connect")
    def _connected(connection: DBAPIConnection, _record: object) -> None:
        # the driver would begin late, and not at all for a savepoint or DDL; `_begin` does it instead
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN"))


def unavailable(error: BaseException) -> StorageUnavailable | None:
    """What a caller is told where `error` means that the database is locked, full or gone; None for other errors."""
    if isinstance(error, StorageUnavailable):
        return error
    gone = (OperationalError, InterfaceError, InternalError, DisconnectionError, PoolTimeout)
    if isinstance(error, gone) or type(error) is DatabaseError:
        return StorageUnavailable("the database does not answer; try again")
    return None


def collided(error: BaseException) -> bool:
    """Whether the transaction was undone because of another's: it would succeed when it is tried again."""
    known = (error, error.__cause__)  # no further: an error may be its own cause
    return any(getattr(getattr(each, "orig", each), "sqlstate", None) in _COLLISIONS for each in known)
