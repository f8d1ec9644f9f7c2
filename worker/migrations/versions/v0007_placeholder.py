"""Hold the place of a migration."""

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Do nothing."""
