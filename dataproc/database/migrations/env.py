"""What Alembic runs: the migrations, on the connection that `schema.migrate` hands over."""

from __future__ import annotations

from alembic import context

from dataproc.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # also on SQLite: a migration that is killed halfway leaves no trace
)
with context.begin_transaction():
    context.run_migrations()
