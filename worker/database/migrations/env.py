"""Alembic runs this file; `worker.database.migrate` gives it the connection."""

from alembic import context

from worker.database.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
