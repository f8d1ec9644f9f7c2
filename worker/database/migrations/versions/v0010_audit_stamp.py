"""Makes the database itself set the time and the login of an entry of the audit log.

The operator API's role may insert entries. Before, it could backdate one, and no entry showed the role that
wrote it. SQLite has no logins, and a process that can write its file can write anything.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

TEXT = sa.Text(collation="C").with_variant(sa.Text(), "sqlite")

# The new id is a UUIDv7 whose first bits are the time in microseconds, so that entries of one transaction keep
# their order; only the random end of the writer's id is kept. PostgreSQL lets every user create temporary types:
# one named uuid would be used here, if pg_temp were not last in the search path.
STAMP = """
CREATE FUNCTION stamp_audit_entry() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
BEGIN
    NEW.id := (lpad(to_hex(us / 1000), 12, '0') || '7' || lpad(to_hex((us % 1000) * 4096 / 1000), 3, '0')
        || 'a' || substr(replace(NEW.id::text, '-', ''), 18))::uuid;
    NEW.at := to_timestamp((us / 1000) / 1000.0);
    NEW.login := session_user;
    RETURN NEW;
END $$
"""


def upgrade() -> None:
    """Add the column, and on PostgreSQL the trigger that sets it."""
    comment = "the login that wrote it, as the database says; none before version 0010, nor on SQLite"
    op.add_column("audit_log", sa.Column("login", TEXT, nullable=True, comment=comment))
    if op.get_context().dialect.name == "postgresql":
        op.execute(STAMP)
        op.execute(
            "CREATE TRIGGER audit_log_stamp BEFORE INSERT ON audit_log"
            " FOR EACH ROW EXECUTE FUNCTION stamp_audit_entry()"
        )
