"""Makes posting cheaper: texts are compared byte by byte, and triggers check a whole batch at once.

The C library decides the sort order of a language. After an upgrade of the operating system a unique index may
no longer find its rows, and a win would be paid again. The order of bytes never changes.

A foreign key checks each row, and locks the row that it refers to: so every credit wrote to its player's row.
The triggers check all rows of a statement at once. A row that they have found can't go away later, because
another trigger refuses to delete it.
"""

from alembic import op

revision = "0004"
down_revision = "0003"

TEXTS = {
    "players": ("id", "currency"),
    "sessions": ("integration", "id", "player_id", "currency"),
    "wallets": ("player_id", "currency", "kind"),
    "transfers": (
        "integration",
        "provider_tx_id",
        "player_id",
        "currency",
        "kind",
        "round_id",
        "game_id",
        "bet_id",
        "session_id",
        "details",
    ),
    "entries": ("account",),
    "conflicts": ("offered",),
}


def upgrade() -> None:
    """Change the collation of texts, the index of rounds, and the checks of entries."""
    # The integration, which most rows share, no longer comes first in any index but the unique one.
    op.drop_index("ix_transfers_round", "transfers")
    op.create_index("ix_transfers_round", "transfers", ["round_id", "player_id"])
    if op.get_context().dialect.name == "postgresql":
        _compare_bytes()
        _guard_on_postgresql()
    else:  # SQLite compares bytes anyway, and its foreign keys cost little
        _guard_on_sqlite()


def _compare_bytes() -> None:
    for table, columns in TEXTS.items():
        changes = ", ".join(f'ALTER COLUMN {column} TYPE text COLLATE "C"' for column in columns)
        op.execute(f"ALTER TABLE {table} {changes}")
        op.execute(f"ANALYZE {table}")  # the change of type dropped the columns' statistics
    # Leaves room for the next version of a wallet's row on its page: then no index has to be updated.
    op.execute("ALTER TABLE wallets SET (fillfactor = 50)")


def _guard_on_postgresql() -> None:
    op.drop_constraint("fk_transfers_player_id", "transfers")
    op.drop_constraint("fk_entries_transfer_id", "entries")
    op.drop_constraint("fk_entries_wallet_id", "entries")
    # LATERAL with LIMIT is planned as an index search, whatever the planner's estimates of the tables' sizes.
    op.execute(
        """
        CREATE OR REPLACE FUNCTION refuse_wrong_legs() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE
            wrong text;
        BEGIN
            SELECT s.wrong INTO wrong FROM (
                SELECT CASE
                    WHEN t.id IS NULL
                        THEN 'an entry is of no transfer'
                    WHEN e.wallet_id IS NOT NULL AND (w.player_id, w.currency, w.kind)
                            IS DISTINCT FROM (t.player_id, t.currency, e.account)
                        THEN 'an entry is on a wallet of another player, currency or kind'
                    WHEN e.amount_minor <> CASE e.account WHEN 'REAL' THEN t.real_minor
                            WHEN 'BONUS' THEN t.bonus_minor ELSE -t.amount_minor END
                        THEN 'an entry has another amount than its transfer says'
                    WHEN sum(e.amount_minor) OVER (PARTITION BY e.transfer_id) <> 0
                        THEN 'the entries of a transfer do not sum to zero'
                END AS wrong
                FROM inserted AS e
                LEFT JOIN LATERAL (SELECT * FROM transfers WHERE id = e.transfer_id LIMIT 1) AS t ON true
                LEFT JOIN LATERAL (SELECT * FROM wallets WHERE id = e.wallet_id LIMIT 1) AS w ON true
            ) AS s WHERE s.wrong IS NOT NULL LIMIT 1;
            IF wrong IS NOT NULL THEN
                RAISE EXCEPTION '%', wrong USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        """
        CREATE FUNCTION refuse_transfers_of_nobody() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (
                SELECT 1 FROM inserted AS t
                LEFT JOIN LATERAL (
                    SELECT id FROM wallets WHERE player_id = t.player_id AND currency = t.currency LIMIT 1
                ) AS w ON true
                WHERE w.id IS NULL
            ) THEN
                RAISE EXCEPTION 'a transfer is of a player who has no wallet in its currency'
                    USING ERRCODE = 'integrity_constraint_violation';
            END IF;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER transfers_of_players AFTER INSERT ON transfers REFERENCING NEW TABLE AS inserted"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_transfers_of_nobody()"
    )
    op.execute(
        "CREATE FUNCTION refuse_other_owner() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'a wallet stays, and stays its player''s'"
        " USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    op.execute(
        "CREATE TRIGGER wallets_stay BEFORE UPDATE OF id, player_id, currency, kind OR DELETE OR TRUNCATE"
        " ON wallets FOR EACH STATEMENT EXECUTE FUNCTION refuse_other_owner()"
    )


def _guard_on_sqlite() -> None:
    op.execute("DROP TRIGGER entries_right_legs")
    op.execute(
        """
        CREATE TRIGGER entries_right_legs BEFORE INSERT ON entries
        BEGIN
            SELECT RAISE(ABORT, 'an entry is on a wallet of another player, currency or kind')
            WHERE NEW.wallet_id IS NOT NULL AND NOT EXISTS (
                SELECT 1 FROM transfers AS t
                JOIN wallets AS w ON w.player_id = t.player_id AND w.currency = t.currency
                WHERE t.id = NEW.transfer_id AND w.id = NEW.wallet_id AND w.kind = NEW.account
            );
            SELECT RAISE(ABORT, 'an entry has another amount than its transfer says')
            FROM transfers AS t WHERE t.id = NEW.transfer_id AND NEW.amount_minor <> CASE NEW.account
                WHEN 'REAL' THEN t.real_minor WHEN 'BONUS' THEN t.bonus_minor ELSE -t.amount_minor END;
        END
        """
    )
    op.execute(
        """
        CREATE TRIGGER transfers_of_players BEFORE INSERT ON transfers
        WHEN NOT EXISTS (SELECT 1 FROM wallets WHERE player_id = NEW.player_id AND currency = NEW.currency)
        BEGIN SELECT RAISE(ABORT, 'a transfer is of a player who has no wallet in its currency'); END
        """
    )
    for change in ("UPDATE OF id, player_id, currency, kind", "DELETE"):
        op.execute(
            f"CREATE TRIGGER wallets_stay_on_{change.split()[0].lower()} BEFORE {change} ON wallets"
            " BEGIN SELECT RAISE(ABORT, 'a wallet stays, and stays its player''s'); END"
        )
