"""Hold the place of a migration."""

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Do nothing."""
