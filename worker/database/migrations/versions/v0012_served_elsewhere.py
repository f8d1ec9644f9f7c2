"""Stores in the ledger which integrations other cells serve, for settings that no longer have such a cell."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Add the column; existing rows are of integrations that this ledger's cell serves."""
    comment = "the other cell that serves it; null where these books do"
    op.add_column("served_integrations", sa.Column("cell", TEXT, nullable=True, comment=comment))
