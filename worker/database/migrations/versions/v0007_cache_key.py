"""Adds the key for the MACs of cached outcomes, to the ledger's row alone."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

KEY_BYTES = 32
COMMENT = "32 random bytes; whoever can read them can forge cached outcomes"
KEY_CHECK = f"length(cache_key) = {KEY_BYTES}"


def upgrade() -> None:
    """Add the key, a random one. Workers of earlier versions do without it."""
    key = secrets.token_bytes(KEY_BYTES)
    if op.get_context().dialect.name == "postgresql":
        op.add_column("ledger", sa.Column("cache_key", sa.LargeBinary, comment=COMMENT))
        _set_key(key)
        op.alter_column("ledger", "cache_key", nullable=False)
        op.create_check_constraint(op.f("ck_ledger_cache_key"), "ledger", KEY_CHECK)
    else:
        _remake_on_sqlite(key)


def _remake_on_sqlite(key: bytes) -> None:
    """Create the table anew: SQLite can't add a column that must not be null to a table with rows."""
    op.rename_table("ledger", "ledger_before")
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("epoch", sa.Uuid, nullable=False, comment="names this state of the books in cache keys"),
        sa.Column("cache_key", sa.LargeBinary, nullable=False, comment=COMMENT),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_single_row")),
        sa.CheckConstraint(KEY_CHECK, name=op.f("ck_ledger_cache_key")),
    )
    copied = sa.text("INSERT INTO ledger (id, epoch, cache_key) SELECT id, epoch, :key FROM ledger_before")
    op.get_bind().execute(copied, {"key": key})
    op.drop_table("ledger_before")


def _set_key(key: bytes) -> None:
    op.get_bind().execute(sa.text("UPDATE ledger SET cache_key = :key"), {"key": key})
