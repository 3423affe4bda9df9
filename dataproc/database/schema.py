"""Brings the tables to the newest version, when the database is opened."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from filelock import FileLock
from sqlalchemy import Connection, Engine, inspect, text

from dataproc.database.connect import BEGIN
from dataproc.database.tables import SCHEMA

_ADVISORY_LOCK = 0x64617461  # any number, the same in every release
_LOCK_WAIT = 60.0


class NewerSchemaError(Exception):
    """The database was made by a newer release, whose tables this one does not know."""


def migrate(engine: Engine) -> None:
    """Bring an older or empty database up to `SCHEMA`, all or nothing, one process at a time.

    Raises NewerSchemaError.
    """
    # the first connection too is made under the lock: two processes that turn a new SQLite file to WAL at once collide
    with (
        _alone(engine),
        engine.connect().execution_options(**{BEGIN: "BEGIN IMMEDIATE"}) as connection,
        _alone_in(connection),
    ):
        if _version(connection) != SCHEMA:
            _upgrade(connection)
            connection.commit()


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    # imported where it is needed: most starts find the newest version, and Alembic takes longer than the rest of them
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    folder = Path(__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    found = _version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise NewerSchemaError(
            f"the database has schema {found}, and this release knows none newer than {SCHEMA}: it was used by a newer "
            "dataproc. Install that release again, or set DATAPROC_DATABASE_URL to another database"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _alone(engine: Engine) -> AbstractContextManager[object]:
    """Hold the lock of migrations of an SQLite database: a file beside it."""
    if engine.dialect.name != "sqlite":
        return nullcontext()
    return FileLock(f"{engine.url.database}.migration", timeout=_LOCK_WAIT, mode=0o600)


def _alone_in(connection: Connection) -> AbstractContextManager[object]:
    """Hold that of a PostgreSQL database, until the transaction ends."""
    if connection.dialect.name == "sqlite":
        return nullcontext()
    from dataproc.database import postgresql

    return postgresql.alone(connection, _ADVISORY_LOCK, _LOCK_WAIT)
