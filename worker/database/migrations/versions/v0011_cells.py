"""Stores in the ledger which cell it belongs to, and which integrations that cell serves."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Add the column and the table, which are empty until there are several cells."""
    comment = "the cell that these books are; null where there are no cells"
    op.add_column("ledger", sa.Column("cell", TEXT, nullable=True, comment=comment))
    op.create_table(
        "served_integrations",
        sa.Column("integration", TEXT, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("integration", name="pk_served_integrations"),
        comment="the integrations whose wins are posted here, and in no other cell",
    )
