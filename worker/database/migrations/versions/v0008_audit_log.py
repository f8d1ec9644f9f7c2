"""Adds the audit log, an append-only table of who changed what, and who was refused."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    """Create the table, its indexes, and the triggers that refuse changes of its entries."""
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid, nullable=False, comment="UUIDv7: in the order of time"),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", TEXT, nullable=False, comment="a user of the operator API, or of the system"),
        sa.Column("via", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column(
            "subject",
            TEXT,
            nullable=False,
            comment="what was acted on, such as player:ID; of a session a fingerprint, never the id",
        ),
        sa.Column("outcome", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False, comment="JSON"),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sa.CheckConstraint("via IN ('api', 'cli', 'process')", name=op.f("ck_audit_log_via")),
        sa.CheckConstraint(
            "length(actor) BETWEEN 1 AND 128 AND length(action) <= 64 AND length(subject) <= 1024"
            " AND length(outcome) <= 64 AND length(detail) <= 65536",
            name=op.f("ck_audit_log_size"),
        ),
        comment="who changed what, and who was refused",
    )
    op.create_index("ix_audit_log_actor", "audit_log", ["actor", "id"])
    op.create_index("ix_audit_log_subject", "audit_log", ["subject", "id"])
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    else:
        _forbid_changes_on_sqlite()


def _forbid_changes_on_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_log_no_{change.lower()} BEFORE {change} ON audit_log"
            " BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END"
        )
    # REPLACE INTO deletes rows without firing the triggers of DELETE.
    op.execute(
        "CREATE TRIGGER audit_log_no_replace BEFORE INSERT ON audit_log"
        " WHEN EXISTS (SELECT 1 FROM audit_log WHERE id = NEW.id)"
        " BEGIN SELECT RAISE(ABORT, 'audit_log is append-only'); END"
    )
