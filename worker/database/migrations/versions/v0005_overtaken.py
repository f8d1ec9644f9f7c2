"""A statement can refuse itself: when another worker came first, nothing of it is written."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the function that a statement calls when what it was made from is no longer so."""
    if op.get_context().dialect.name == "postgresql":  # on SQLite nobody can come between
        op.execute(
            "CREATE FUNCTION refuse_overtaken() RETURNS boolean LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'another worker came first' USING ERRCODE = 'serialization_failure';"
            " END $$"
        )
