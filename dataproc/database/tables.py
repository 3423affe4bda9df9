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
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

SCHEMA = "0003"  # the newest migration; a test holds it to the folder of migrations

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
    Column("extensions", Integer, nullable=False, server_default=text("0")),  # how often its life was extended
    Column("ended_by", Text),  # who ended it
    Column("kept_until", BigInteger),  # how long its files can be restored; 0 while they are being deleted
)
_OPEN = text("state = 'open' AND name IS NOT NULL")
Index(
    "uq_sessions_open_name", sessions.c.key_id, sessions.c.name, unique=True, sqlite_where=_OPEN, postgresql_where=_OPEN
)
Index("ix_sessions_expiry", sessions.c.state, sessions.c.expires_at)
Index("ix_sessions_idleness", sessions.c.state, sessions.c.idle_expires_at)
Index("ix_sessions_ending", sessions.c.state, sessions.c.ended_at)
Index("ix_sessions_owner", sessions.c.key_id, sessions.c.state, sessions.c.created_at, sessions.c.id)
Index("ix_sessions_newest", sessions.c.key_id, sessions.c.created_at, sessions.c.id)
Index("ix_sessions_created", sessions.c.created_at, sessions.c.id)
_KEPT = text("kept_until IS NOT NULL")
Index("ix_sessions_kept", sessions.c.kept_until, sqlite_where=_KEPT, postgresql_where=_KEPT)

# what the files of sessions take, as it was noted last; only of those that have any
session_usage = Table(
    "session_usage",
    metadata,
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("key_id", String(160), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
)

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

# of the REST facade: bound to a key and to no session
user_tokens = Table(
    "user_tokens",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("key_id", ForeignKey("keys.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("idle_expires_at", BigInteger, nullable=False, index=True),
    Column("ended_at", BigInteger),
)

user_sessions = Table(
    "user_sessions",
    metadata,
    Column("session_id", ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("user_token_id", ForeignKey("user_tokens.id", ondelete="CASCADE"), nullable=False, index=True),
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(40), primary_key=True),  # begins with the time: the order of ids is that of the runs
    # no foreign keys: a record outlives its session's tombstone
    Column("key_id", String(160), nullable=False),
    Column("session_id", String(160), nullable=False),
    Column("module", Text, nullable=False),
    Column("module_version", Text, nullable=False),
    Column("method", Text, nullable=False),
    # JSON; NULL where there is nothing to write
    Column("params", Text),
    Column("input", Text),
    Column("output", Text),
    Column("status", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("ended_at", BigInteger),
    Column("result", Text),
    Column("error", Text),
    Column("messages", Text),
    Column("progress", Text),
    Column("changes", Text),
    Column("log_bytes", BigInteger, nullable=False),
    Column("cpu_time", BigInteger),
    Column("peak_memory", BigInteger),
    Column("bytes_read", BigInteger),
    Column("bytes_written", BigInteger),
    Column("node", Text, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("timeout", BigInteger),  # what its caller asked for
    Column("submitted", BigInteger, nullable=False),  # 1: it runs whether or not somebody waits for it
    Column("closes", BigInteger, nullable=False),  # 1: its session is still to be ended after it
    Column("request_id", Text),
)
_UNFINISHED = text("status IN ('queued', 'running')")
_CLOSES = text("closes = 1")
NOT_COMPLETED = "status <> 'completed'"  # as a statement has to say it for the small indexes to be used
_UNUSUAL = text(NOT_COMPLETED)
Index("ix_runs_unfinished", runs.c.node, sqlite_where=_UNFINISHED, postgresql_where=_UNFINISHED)
Index("ix_runs_closes", runs.c.node, sqlite_where=_CLOSES, postgresql_where=_CLOSES)
Index("ix_runs_session", runs.c.session_id, runs.c.id)
Index("ix_runs_key", runs.c.key_id, runs.c.id)
Index(
    "ix_runs_session_unusual", runs.c.session_id, runs.c.status, runs.c.id,
    sqlite_where=_UNUSUAL, postgresql_where=_UNUSUAL,
)  # fmt: skip
Index(
    "ix_runs_key_unusual", runs.c.key_id, runs.c.status, runs.c.id,
    sqlite_where=_UNUSUAL, postgresql_where=_UNUSUAL,
)  # fmt: skip

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("scope", String(200), primary_key=True),  # a session, or the key of a caller without a token
    Column("name", String(255), primary_key=True),
    Column("digest", LargeBinary(32), nullable=False),  # of the call's arguments
    Column("run_id", String(40), nullable=False),
    Column("created_at", BigInteger, nullable=False, index=True),
)

nodes = Table(
    "nodes",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("beat_at", BigInteger, nullable=False),  # when it was last known to live
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    # no foreign keys: what was done outlives what it was done to
    Column("at", BigInteger, nullable=False),
    Column("event", String(40), nullable=False),
    Column("actor", Text, nullable=False),
    Column("key_id", String(160)),
    Column("session_id", String(160)),
    Column("client", Text),
    Column("request_id", Text),
    Column("details", Text, nullable=False),
)
Index("ix_audit_at", audit.c.at)
Index("ix_audit_key", audit.c.key_id, audit.c.id)
Index("ix_audit_session", audit.c.session_id, audit.c.id)

# The catalogue. Owners have no foreign key: a trusted gateway may name keys that are not in our table.
datasets = Table(
    "datasets",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("key_id", String(160), nullable=False),
    Column("name", String(100), nullable=False),
    Column("folder", Text, nullable=False),
    Column("key_columns", Text, nullable=False),
    Column("session_id", String(160)),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("key_id", "name", name="uq_datasets_owner_name"),
)

# What a data set is, or was: its newest version is the one that records are put to.
dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("dataset_id", ForeignKey("datasets.id", ondelete="CASCADE"), nullable=False),
    Column("columns", Text, nullable=False),
    Column("parts", Text, nullable=False),
    Column("revision", BigInteger, nullable=False),  # goes up with every change of the parts
    Column("run_id", String(40)),
    Column("created_at", BigInteger, nullable=False),  # in the long form of the name
)
Index("uq_dataset_versions", dataset_versions.c.dataset_id, dataset_versions.c.created_at, unique=True)

dataset_citations = Table(
    "dataset_citations",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("key_id", String(160), nullable=False),
    Column("label", String(100), nullable=False),
    Column("dataset_id", ForeignKey("datasets.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("columns", Text, nullable=False),
    Column("parts", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    UniqueConstraint("key_id", "label", name="uq_dataset_citations_owner_label"),
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("model_id", String(36), nullable=False, unique=True),
    Column("key_id", String(160), nullable=False),
    Column("store", String(100), nullable=False),
    Column("model_kind", Text, nullable=False),
    Column("model_description", Text, nullable=False),
    Column("model_meta", Text, nullable=False),
    Column("model_state", Integer, nullable=False),
    Column("model_hash", String(32), nullable=False),
    Column("model_size", BigInteger, nullable=False),
    Column("round", Integer, nullable=False),
    Column("hop_count", Integer, nullable=False),
    Column("start_datetime", BigInteger, nullable=False),
    Column("end_datetime", BigInteger, nullable=False),
    Column("run_id", String(40)),
)
Index("ix_models_store", models.c.key_id, models.c.store, models.c.id)

catalogue_shares = Table(
    "catalogue_shares",
    metadata,
    Column("kind", String(12), primary_key=True),  # dataset, or model_store
    Column("name", String(100), primary_key=True),
    Column("key_id", String(160), primary_key=True),  # who may read it
    Column("owner_id", String(160), nullable=False),
)

# who has a session whose files lie in a store of objects; no foreign key: it outlives the session until all is deleted
leases = Table(
    "leases",
    metadata,
    Column("session_id", String(160), primary_key=True),
    Column("holder", String(32)),  # one life of a node
    Column("node", Text, nullable=False),
    Column("url", Text),
    Column("fence", BigInteger, nullable=False),  # grows each time that another takes it
    Column("expires_at", BigInteger, nullable=False),
    Column("revision", Text),  # what the files are
    Column("published", Text),  # the revision that was copied to plain names
    Column("dropped_at", BigInteger),
)
_DROPPED = text("dropped_at IS NOT NULL")
Index("ix_leases_dropped_at", leases.c.dropped_at, sqlite_where=_DROPPED, postgresql_where=_DROPPED)

# runs that are to be ended by the servers that have them
run_cancels = Table("run_cancels", metadata, Column("run_id", String(40), primary_key=True))

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
