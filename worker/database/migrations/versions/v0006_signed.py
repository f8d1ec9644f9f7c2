"""Makes a signed message pay only once, and the player of a session or an account unchangeable.

If the signed text is a concatenation of fields without separators, its signature fits many requests. The
database stores the digest of each such text that has paid, and refuses any other transfer with it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the digests with their unique index, and the triggers that refuse changes of sessions and players."""
    op.add_column(
        "transfers",
        sa.Column(
            "signed_digest",
            sa.LargeBinary,
            comment="SHA-256 of a signed message that could be cut elsewhere",
        ),
    )
    op.create_index(
        "uq_transfers_signed_digest",
        "transfers",
        ["integration", "signed_digest"],
        unique=True,
        postgresql_where=sa.text("signed_digest IS NOT NULL"),
        sqlite_where=sa.text("signed_digest IS NOT NULL"),
    )
    if op.get_context().dialect.name == "postgresql":
        _guard_on_postgresql()
    else:
        _guard_on_sqlite()


def _guard_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_other_holder() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% never change hands', TG_TABLE_NAME"
        " USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER sessions_stay"
        " BEFORE UPDATE OF integration, id, player_id, currency, opened_at OR DELETE OR TRUNCATE"
        " ON sessions FOR EACH STATEMENT EXECUTE FUNCTION refuse_other_holder()"
    )
    op.execute(
        "CREATE TRIGGER sessions_stay_closed BEFORE UPDATE OF closed_at ON sessions FOR EACH ROW"
        " WHEN (OLD.closed_at IS NOT NULL) EXECUTE FUNCTION refuse_other_holder()"
    )
    op.execute(
        "CREATE TRIGGER players_stay BEFORE UPDATE OR DELETE OR TRUNCATE"
        " ON players FOR EACH STATEMENT EXECUTE FUNCTION refuse_other_holder()"
    )


def _guard_on_sqlite() -> None:
    fixed = "integration, id, player_id, currency, opened_at"
    refused = (
        f"sessions_stay_on_update BEFORE UPDATE OF {fixed} ON sessions",
        "sessions_stay_closed BEFORE UPDATE OF closed_at ON sessions WHEN OLD.closed_at IS NOT NULL",
        "sessions_stay_on_delete BEFORE DELETE ON sessions",
        "players_stay_on_update BEFORE UPDATE ON players",
        "players_stay_on_delete BEFORE DELETE ON players",
    )
    for trigger in refused:
        table = trigger.partition("_")[0]
        op.execute(f"CREATE TRIGGER {trigger} BEGIN SELECT RAISE(ABORT, '{table} never change hands'); END")
    # REPLACE INTO deletes rows without firing the triggers of DELETE. So a new row whose key exists is ignored,
    # also in an ordinary INSERT.
    keys = {"sessions": "integration = NEW.integration AND id = NEW.id", "players": "id = NEW.id"}
    for table, same_key in keys.items():
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}"  # noqa: S608
            f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {same_key}) BEGIN SELECT RAISE(IGNORE); END"
        )
    op.execute("DROP TRIGGER transfers_no_replace")
    op.execute(
        "CREATE TRIGGER transfers_no_replace BEFORE INSERT ON transfers WHEN EXISTS (SELECT 1 FROM transfers"
        " WHERE id = NEW.id OR integration = NEW.integration AND provider_tx_id = NEW.provider_tx_id"
        " OR integration = NEW.integration AND signed_digest = NEW.signed_digest)"
        " BEGIN SELECT RAISE(ABORT, 'transfers is append-only'); END"
    )
