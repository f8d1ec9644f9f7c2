"""The books remember which integrations other cells serve, for when settings name such a cell no more."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Add the cell; what is there is these books' own."""
    comment = "the other cell that serves it; null where these books do"
    op.add_column("served_integrations", sa.Column("cell", TEXT, nullable=True, comment=comment))
