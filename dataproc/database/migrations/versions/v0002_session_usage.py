"""What the files of sessions take, so that the quota of a key counts those that no server has in use."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "session_usage",
        sa.Column("session_id", sa.String(length=160), nullable=False),
        sa.Column("key_id", sa.String(length=160), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_session_usage_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("session_id", name="pk_session_usage"),
    )
    op.create_index("ix_session_usage_key_id", "session_usage", ["key_id"])
