"""Adds a function by which a statement fails, and writes nothing, if another worker has written first."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Create the function, which a statement calls if the rows that it was planned from have changed."""
    if op.get_context().dialect.name == "postgresql":  # on SQLite the lock of the file rules that out
        op.execute(
            "CREATE FUNCTION refuse_overtaken() RETURNS boolean LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'another worker came first' USING ERRCODE = 'serialization_failure';"
            " END $$"
        )
