"""Players, sessions, wallets, and the append-only ledger of transfers and entries."""

import sqlalchemy as sa
from alembic import op
from uuid_utils.compat import uuid7

revision = "0001"
down_revision = None

MINOR_MAX = 10**18 - 1
CURRENCY_CHECK = "length(currency) BETWEEN 3 AND 10 AND currency = upper(currency)"


def upgrade() -> None:
    """Create the tables, and the triggers that refuse changes of transfers and entries."""
    _create_players()
    _create_transfers()
    _create_entries()
    _create_epoch()
    if op.get_context().dialect.name == "postgresql":
        _forbid_changes_on_postgresql()
    else:
        _forbid_changes_on_sqlite()


def _create_players() -> None:
    op.create_table(
        "players",
        sa.Column("id", sa.Text, nullable=False, comment="the operator's own id of the player"),
        sa.Column("currency", sa.Text, nullable=False, comment="the player's own; they may hold wallets in others"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_players"),
        sa.CheckConstraint(CURRENCY_CHECK, name=op.f("ck_players_currency")),
    )
    op.create_table(
        "sessions",
        sa.Column("integration", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False, comment="the provider's wallet session"),
        sa.Column("player_id", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("integration", "id", name="pk_sessions"),
        sa.CheckConstraint(CURRENCY_CHECK, name=op.f("ck_sessions_currency")),
        sa.ForeignKeyConstraint(["player_id"], ["players.id"], name="fk_sessions_player_id"),
    )
    op.create_table(
        "wallets",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("player_id", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("balance_minor", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False, comment="how many entries the wallet has"),
        sa.PrimaryKeyConstraint("id", name="pk_wallets"),
        sa.UniqueConstraint("player_id", "currency", "kind", name="uq_wallets_player_id_currency_kind"),
        sa.ForeignKeyConstraint(["player_id"], ["players.id"], name="fk_wallets_player_id"),
        sa.CheckConstraint("kind IN ('REAL', 'BONUS')", name=op.f("ck_wallets_kind")),
        sa.CheckConstraint(f"balance_minor BETWEEN 0 AND {MINOR_MAX}", name=op.f("ck_wallets_balance")),
        sa.CheckConstraint(CURRENCY_CHECK, name=op.f("ck_wallets_currency")),
    )


def _create_transfers() -> None:
    op.create_table(
        "transfers",
        sa.Column("id", sa.Uuid, nullable=False, comment="UUIDv7: new rows are neighbours in the index"),
        sa.Column("integration", sa.Text, nullable=False),
        sa.Column("provider_tx_id", sa.Text, nullable=False),
        sa.Column("player_id", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("round_id", sa.Text),
        sa.Column("game_id", sa.Text),
        sa.Column("bet_id", sa.Text),
        sa.Column("real_minor", sa.BigInteger, nullable=False),
        sa.Column("bonus_minor", sa.BigInteger, nullable=False),
        sa.Column("real_balance_minor", sa.BigInteger, nullable=False, comment="right after this transfer"),
        sa.Column("bonus_balance_minor", sa.BigInteger, nullable=False, comment="right after this transfer"),
        sa.Column("round_closed", sa.Boolean, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("details", sa.Text, nullable=False, comment="JSON: what else the provider said"),
        sa.Column("posted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_transfers"),
        sa.UniqueConstraint("integration", "provider_tx_id", name="uq_transfers_integration_provider_tx_id"),
        sa.ForeignKeyConstraint(["player_id"], ["players.id"], name="fk_transfers_player_id"),
        sa.CheckConstraint(
            "amount_minor >= 0 AND real_minor >= 0 AND bonus_minor >= 0", name=op.f("ck_transfers_sign")
        ),
        sa.CheckConstraint("real_minor + bonus_minor = amount_minor", name=op.f("ck_transfers_split")),
        sa.CheckConstraint(f"amount_minor <= {MINOR_MAX}", name=op.f("ck_transfers_digits")),
        sa.CheckConstraint(CURRENCY_CHECK, name=op.f("ck_transfers_currency")),
    )


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("transfer_id", sa.Uuid, nullable=False),
        sa.Column("account", sa.Text, nullable=False),
        sa.Column("wallet_id", sa.Uuid, comment="none for the settlement account"),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("balance_minor", sa.BigInteger, comment="the wallet's, right after this entry"),
        sa.Column("wallet_version", sa.BigInteger, comment="1 for a wallet's first entry, then without gaps"),
        sa.PrimaryKeyConstraint("transfer_id", "account", name="pk_entries"),
        sa.ForeignKeyConstraint(["transfer_id"], ["transfers.id"], name="fk_entries_transfer_id"),
        sa.ForeignKeyConstraint(["wallet_id"], ["wallets.id"], name="fk_entries_wallet_id"),
        sa.CheckConstraint("account IN ('REAL', 'BONUS', 'SETTLEMENT')", name=op.f("ck_entries_account")),
        sa.CheckConstraint(
            "CASE account WHEN 'SETTLEMENT'"
            " THEN amount_minor < 0 AND wallet_id IS NULL"
            " AND balance_minor IS NULL AND wallet_version IS NULL"
            " ELSE amount_minor > 0 AND wallet_id IS NOT NULL AND balance_minor >= amount_minor"
            " AND wallet_version >= 1 END",
            name=op.f("ck_entries_leg"),
        ),
    )


def _create_epoch() -> None:
    ledger = op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("epoch", sa.Uuid, nullable=False, comment="names this state of the books in cache keys"),
        sa.PrimaryKeyConstraint("id", name="pk_ledger"),
        sa.CheckConstraint("id = 1", name=op.f("ck_ledger_single_row")),
    )
    op.bulk_insert(ledger, [{"id": 1, "epoch": uuid7()}])


def _forbid_changes_on_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in ("transfers", "entries"):
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def _forbid_changes_on_sqlite() -> None:
    keys = {
        "transfers": "id = NEW.id OR integration = NEW.integration AND provider_tx_id = NEW.provider_tx_id",
        "entries": "transfer_id = NEW.transfer_id AND account = NEW.account",
    }
    for table, same_key in keys.items():
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )
        # REPLACE INTO deletes rows without firing the triggers of DELETE.
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}"  # noqa: S608
            f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {same_key})"
            f" BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )
