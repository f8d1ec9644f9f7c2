"""Requires new wallets to be empty: a role that may add wallets for new players can put no money into them."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Create the trigger that checks each new wallet."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_filled_wallet() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'a new wallet is empty'"
            " USING ERRCODE = 'integrity_constraint_violation'; END $$"
        )
        op.execute(
            "CREATE TRIGGER wallets_begin_empty BEFORE INSERT ON wallets FOR EACH ROW"
            " WHEN (NEW.balance_minor <> 0 OR NEW.version <> 0) EXECUTE FUNCTION refuse_filled_wallet()"
        )
    else:
        op.execute(
            "CREATE TRIGGER wallets_begin_empty BEFORE INSERT ON wallets"
            " WHEN NEW.balance_minor <> 0 OR NEW.version <> 0"
            " BEGIN SELECT RAISE(ABORT, 'a new wallet is empty'); END"
        )
