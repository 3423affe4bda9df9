"""The tables, as they are after the newest migration.

Moments are microseconds since 1970 in UTC and durations microseconds, as integers, so that every dialect compares and
adds them alike. Secrets and tokens stand here as SHA-256 digests only. Sets of scopes are words separated by spaces;
what no statement looks into is JSON text.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

SCHEMA = "0001"  # the newest migration; a test holds it to the folder of migrations

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", Text, nullable=False),
    Column("apikey", String(64), nullable=False, unique=True),
    Column("secret_digest", LargeBinary(32), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("grants", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)
_LIVE = text("revoked_at IS NULL")
Index("uq_keys_live_name", keys.c.name, unique=True, sqlite_where=_LIVE, postgresql_where=_LIVE)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String(160), primary_key=True),
    # no foreign key: a trusted gateway may name keys that are not in our table
    Column("key_id", String(160), nullable=False),
    Column("state", String(8), nullable=False),
    Column("reason", String(16)),
    Column("name", Text),
    Column("labels", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),  # the fixed clock
    Column("idle_timeout", BigInteger),
    Column("idle_expires_at", BigInteger),  # the idle clock, moved by activity
    Column("ended_at", BigInteger),  # since when it takes no calls: set when it begins to close
    Column("one_shot_of", Text),  # the node whose call it ends with
)
_OPEN = text("state = 'open' AND name IS NOT NULL")
Index(
    "uq_sessions_open_name", sessions.c.key_id, sessions.c.name, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN
)
Index("ix_sessions_expiry", sessions.c.state, sessions.c.expires_at)
Index("ix_sessions_idleness", sessions.c.state, sessions.c.idle_expires_at)
Index("ix_sessions_ending", sessions.c.state, sessions.c.ended_at)
Index("ix_sessions_owner", sessions.c.key_id, sessions.c.state, sessions.c.created_at)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    Column("parent_id", ForeignKey("tokens.id", ondelete="CASCADE"), index=True),  # the token that it was issued from
    Column("scopes", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(40), primary_key=True),
    # no foreign keys: a record outlives its session's tombstone
    Column("key_id", String(160), nullable=False),
    Column("session_id", String(160), nullable=False),
    Column("module", Text, nullable=False),
    Column("module_version", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("input", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("result", Text, nullable=False),
    Column("error", Text),
    Column("log_bytes", BigInteger, nullable=False),
    Column("node", Text, nullable=False),
)
_UNFINISHED = text("status IN ('queued', 'running')")
Index("ix_runs_unfinished", runs.c.node, sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED)
Index("ix_runs_session", runs.c.session_id, runs.c.created_at)
Index("ix_runs_ended_at", runs.c.ended_at)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970; `moment` must be aware."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The aware UTC moment of so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=value)


def maybe_micros(value: datetime | None) -> int | None:
    """As `micros`; None stays None."""
    return None if value is None else micros(value)


def maybe_moment(value: int | None) -> datetime | None:
    """As `moment`; None stays None."""
    return None if value is None else moment(value)
