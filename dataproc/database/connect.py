"""Engines: how a database is reached, and which of its failures mean that it does not answer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError, DisconnectionError, InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dataproc.errors import StorageUnavailable

READERS = 4
BEGIN = "dataproc_begin"  # execution option: how SQLite begins this connection's transactions


def open_engine(url: str, fsync: bool, busy_timeout: float) -> Engine:
    """The engine of `url`, with as many connections as there are threads that use it; connects to nothing yet.

    busy_timeout: seconds for which SQLite waits for another process's write.
    Raises ValueError for a database that several threads cannot share.
    """
    parsed = make_url(url)
    # parameters are hidden from errors, because errors are logged and parameters hold what callers sent
    options: dict[str, Any] = {"pool_size": READERS + 1, "max_overflow": 1, "hide_parameters": True}
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True, **options)
    if parsed.database in (None, "", ":memory:"):
        raise ValueError(
            "an SQLite database in memory cannot be shared by threads: name a file, as sqlite:////path/x.db"
        )
    assert parsed.database is not None
    _make_private(Path(parsed.database))
    engine = create_engine(parsed, connect_args={"timeout": busy_timeout, "check_same_thread": False}, **options)
    _prepare_sqlite(engine, fsync)
    return engine


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
