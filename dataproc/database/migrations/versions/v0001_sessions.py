"""The tables of sessions: keys, tokens, sessions, runs, and what is kept beside runs."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Apply."""
    _audit()
    _catalogue()
    _keys()
    _leases()
    _runs()
    _run_keeping()
    _sessions()
    _tokens()
    _user_tokens()


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("key_id", sa.String(length=160)),
        sa.Column("session_id", sa.String(length=160)),
        sa.Column("client", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("ix_audit_key", "audit", ["key_id", "id"])
    op.create_index("ix_audit_session", "audit", ["session_id", "id"])


def _catalogue() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("key_id", sa.String(length=160), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("key_columns", sa.Text(), nullable=False),
        sa.Column("session_id", sa.String(length=160)),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_datasets"),
        sa.UniqueConstraint("key_id", "name", name="uq_datasets_owner_name"),
    )
    _states("dataset_versions", [sa.Column("revision", sa.BigInteger(), nullable=False)])
    _states(
        "dataset_citations",
        [
            sa.Column("key_id", sa.String(length=160), nullable=False),
            sa.Column("label", sa.String(length=100), nullable=False),
            sa.UniqueConstraint("key_id", "label", name="uq_dataset_citations_owner_label"),
        ],
    )
    op.create_index("uq_dataset_versions", "dataset_versions", ["dataset_id", "created_at"], unique=True)
    op.create_index("ix_dataset_citations_dataset_id", "dataset_citations", ["dataset_id"])
    _models()
    op.create_table(
        "catalogue_shares",
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("key_id", sa.String(length=160), nullable=False),
        sa.Column("owner_id", sa.String(length=160), nullable=False),
        sa.PrimaryKeyConstraint("kind", "name", "key_id", name="pk_catalogue_shares"),
    )


def _states(table: str, further: list[sa.Column[Any] | sa.UniqueConstraint]) -> None:
    runs = [sa.Column("run_id", sa.String(length=40))] if table == "dataset_versions" else []
    op.create_table(
        table,
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("columns", sa.Text(), nullable=False),
        sa.Column("parts", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *runs,
        *further,
        sa.ForeignKeyConstraint(["dataset_id"], ["datasets.id"], name=f"fk_{table}_dataset_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
    )


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model_id", sa.String(length=36), nullable=False),
        sa.Column("key_id", sa.String(length=160), nullable=False),
        sa.Column("store", sa.String(length=100), nullable=False),
        sa.Column("model_kind", sa.Text(), nullable=False),
        sa.Column("model_description", sa.Text(), nullable=False),
        sa.Column("model_meta", sa.Text(), nullable=False),
        sa.Column("model_state", sa.Integer(), nullable=False),
        sa.Column("model_hash", sa.String(length=32), nullable=False),
        sa.Column("model_size", sa.BigInteger(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("hop_count", sa.Integer(), nullable=False),
        sa.Column("start_datetime", sa.BigInteger(), nullable=False),
        sa.Column("end_datetime", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=40)),
        sa.PrimaryKeyConstraint("id", name="pk_models"),
        sa.UniqueConstraint("model_id", name="uq_models_model_id"),
    )
    op.create_index("ix_models_store", "models", ["key_id", "store", "id"])


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("session_id", sa.String(length=160), nullable=False),
        sa.Column("holder", sa.String(length=32)),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Text()),
        sa.Column("published", sa.Text()),
        sa.Column("dropped_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("session_id", name="pk_leases"),
    )
    op.create_index(
        "ix_leases_dropped_at",
        "leases",
        ["dropped_at"],
        unique=False,
        sqlite_where=sa.text("dropped_at IS NOT NULL"),
        postgresql_where=sa.text("dropped_at IS NOT NULL"),
    )


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("apikey", sa.String(length=64), nullable=False),
        sa.Column("secret_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("grants", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("apikey", name="uq_keys_apikey"),
    )
    op.create_index(
        "uq_keys_live_name",
        "keys",
        ["name"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("key_id", sa.String(length=160), nullable=False),
        sa.Column("session_id", sa.String(length=160), nullable=False),
        sa.Column("module", sa.Text(), nullable=False),
        sa.Column("module_version", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        *[sa.Column(name, sa.Text()) for name in ("params", "input", "output")],
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *[sa.Column(name, sa.BigInteger()) for name in ("started_at", "ended_at")],
        *[sa.Column(name, sa.Text()) for name in ("result", "error", "messages", "progress", "changes")],
        sa.Column("log_bytes", sa.BigInteger(), nullable=False),
        *[sa.Column(name, sa.BigInteger()) for name in ("cpu_time", "peak_memory", "bytes_read", "bytes_written")],
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("timeout", sa.BigInteger()),
        *[sa.Column(name, sa.BigInteger(), nullable=False) for name in ("submitted", "closes")],
        sa.Column("request_id", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_session", "runs", ["session_id", "id"])
    op.create_index("ix_runs_key", "runs", ["key_id", "id"])
    for name, columns, where in (
        ("ix_runs_unfinished", ["node"], "status IN ('queued', 'running')"),
        ("ix_runs_closes", ["node"], "closes = 1"),
        ("ix_runs_session_unusual", ["session_id", "status", "id"], "status <> 'completed'"),
        ("ix_runs_key_unusual", ["key_id", "status", "id"], "status <> 'completed'"),
    ):
        op.create_index(
            name, "runs", columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
        )


def _run_keeping() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("scope", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "name", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"])
    op.create_table(
        "nodes",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("beat_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_nodes"),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("id", sa.String(length=160), nullable=False),
        sa.Column("key_id", sa.String(length=160), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.String(length=16)),
        sa.Column("name", sa.Text()),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("idle_timeout", sa.BigInteger()),
        sa.Column("idle_expires_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.Column("one_shot_of", sa.Text()),
        sa.Column("extensions", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("ended_by", sa.Text()),
        sa.Column("kept_until", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_ending", "sessions", ["state", "ended_at"])
    op.create_index("ix_sessions_expiry", "sessions", ["state", "expires_at"])
    op.create_index("ix_sessions_idleness", "sessions", ["state", "idle_expires_at"])
    op.create_index("ix_sessions_created", "sessions", ["created_at", "id"])
    op.create_index(
        "ix_sessions_kept",
        "sessions",
        ["kept_until"],
        unique=False,
        sqlite_where=sa.text("kept_until IS NOT NULL"),
        postgresql_where=sa.text("kept_until IS NOT NULL"),
    )
    op.create_index("ix_sessions_newest", "sessions", ["key_id", "created_at", "id"])
    op.create_index("ix_sessions_owner", "sessions", ["key_id", "state", "created_at", "id"])
    op.create_index(
        "uq_sessions_open_name",
        "sessions",
        ["key_id", "name"],
        unique=True,
        sqlite_where=sa.text("state = 'open' AND name IS NOT NULL"),
        postgresql_where=sa.text("state = 'open' AND name IS NOT NULL"),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("session_id", sa.String(length=160), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("parent_id", sa.String(length=40)),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_tokens_key_id"),
        sa.ForeignKeyConstraint(["parent_id"], ["tokens.id"], name="fk_tokens_parent_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], name="fk_tokens_session_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("digest", name="uq_tokens_digest"),
    )
    op.create_index("ix_tokens_parent_id", "tokens", ["parent_id"])
    op.create_index("ix_tokens_session_id", "tokens", ["session_id"])


def _user_tokens() -> None:
    op.create_table(
        "user_tokens",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("idle_expires_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_user_tokens_key_id"),
        sa.PrimaryKeyConstraint("id", name="pk_user_tokens"),
        sa.UniqueConstraint("digest", name="uq_user_tokens_digest"),
    )
    op.create_index("ix_user_tokens_idle_expires_at", "user_tokens", ["idle_expires_at"])
    op.create_table(
        "user_sessions",
        sa.Column("session_id", sa.String(length=160), nullable=False),
        sa.Column("user_token_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_user_sessions_session_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_token_id"], ["user_tokens.id"], name="fk_user_sessions_user_token_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", name="pk_user_sessions"),
    )
    op.create_index("ix_user_sessions_user_token_id", "user_sessions", ["user_token_id"])
