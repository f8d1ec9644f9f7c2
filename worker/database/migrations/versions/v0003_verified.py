"""Adds the checkpoints of `verify`: its verified points, and each wallet as it was at the last of them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Create the tables. They are empty until the first audit, which therefore reads everything."""
    op.create_table(
        "verified_points",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False, comment="1, 2, 3, ..."),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False, comment="the state that was read"),
        sa.Column("is_full", sa.Boolean, nullable=False),
        sa.Column("from_transfer_id", sa.Uuid, comment="transfers were read from here; all of them if null"),
        sa.Column("to_transfer_id", sa.Uuid, comment="the highest id in the books; null: there was none"),
        sa.Column("transfers", sa.BigInteger, nullable=False, comment="how many were read"),
        sa.PrimaryKeyConstraint("id", name="pk_verified_points"),
        comment="states of the books in which everything held",
    )
    op.create_table(
        "verified_wallets",
        sa.Column("wallet_id", sa.Uuid, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("balance_minor", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("wallet_id", name="pk_verified_wallets"),
        comment="wallets as they were at the last verified point; those that had no entries are not here",
    )
