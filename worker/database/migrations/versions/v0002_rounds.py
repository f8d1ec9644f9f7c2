"""Adds lookups of rounds and conflicts, and requires an entry to be on a wallet of its transfer's player."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column and the index of rounds, the table of conflicts, and the triggers that check an entry's wallet."""
    op.add_column(
        "transfers",
        sa.Column(
            "after_round_closed",
            sa.Boolean,
            nullable=False,
            server_default=sa.false(),
            comment="the player's round was closed before this win came, which is paid all the same",
        ),
    )
    # With the player, because in some games thousands of players share a round.
    op.create_index("ix_transfers_round", "transfers", ["integration", "round_id", "player_id"])
    op.create_index("ix_transfers_player", "transfers", ["player_id", "id"])
    _create_conflicts()
    if op.get_context().dialect.name == "postgresql":
        _guard_on_postgresql()
    else:
        _guard_on_sqlite()


def _create_conflicts() -> None:
    op.create_table(
        "conflicts",
        sa.Column("transfer_id", sa.Uuid, nullable=False),
        sa.Column("offered", sa.Text, nullable=False, comment="JSON: the fields that differed, as they were sent"),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("transfer_id", "offered", name="pk_conflicts"),
        sa.ForeignKeyConstraint(["transfer_id"], ["transfers.id"], name="fk_conflicts_transfer_id"),
        comment="ids that were sent again with other content; nothing moved",
    )


def _guard_on_postgresql() -> None:
    op.execute(
        "CREATE TRIGGER conflicts_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON conflicts"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    # A trigger for the whole statement, because the legs of a transfer are inserted together.
    op.execute(
        """
        CREATE FUNCTION refuse_wrong_legs() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (
                SELECT 1 FROM inserted AS e
                JOIN transfers AS t ON t.id = e.transfer_id
                JOIN wallets AS w ON w.id = e.wallet_id
                WHERE w.player_id <> t.player_id OR w.currency <> t.currency OR w.kind <> e.account
            ) THEN
                RAISE EXCEPTION 'an entry is on a wallet of another player, currency or kind';
            END IF;
            IF EXISTS (SELECT 1 FROM inserted GROUP BY transfer_id HAVING sum(amount_minor) <> 0) THEN
                RAISE EXCEPTION 'the entries of a transfer do not sum to zero';
            END IF;
            RETURN NULL;
        END $$
        """
    )
    op.execute(
        "CREATE TRIGGER entries_right_legs AFTER INSERT ON entries REFERENCING NEW TABLE AS inserted"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_wrong_legs()"
    )


def _guard_on_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER conflicts_no_{change.lower()} BEFORE {change} ON conflicts"
            " BEGIN SELECT RAISE(ABORT, 'conflicts is append-only'); END"
        )
    # It ignores the row, where those of the other tables raise: a conflict that is seen again is inserted again,
    # and this trigger fires before the INSERT's own ON CONFLICT. REPLACE INTO finds nothing to replace.
    op.execute(
        "CREATE TRIGGER conflicts_no_replace BEFORE INSERT ON conflicts WHEN EXISTS"
        " (SELECT 1 FROM conflicts WHERE transfer_id = NEW.transfer_id AND offered = NEW.offered)"
        " BEGIN SELECT RAISE(IGNORE); END"
    )
    # It fires row by row, so it can't check that the legs of a transfer sum to zero: `verify` does.
    op.execute(
        """
        CREATE TRIGGER entries_right_legs BEFORE INSERT ON entries
        WHEN NEW.wallet_id IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM transfers AS t
            JOIN wallets AS w ON w.player_id = t.player_id AND w.currency = t.currency
            WHERE t.id = NEW.transfer_id AND w.id = NEW.wallet_id AND w.kind = NEW.account
        )
        BEGIN SELECT RAISE(ABORT, 'an entry is on a wallet of another player, currency or kind'); END
        """
    )
