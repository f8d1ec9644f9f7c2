"""Commands while one cell's database is away: what it may have is never said to be missing."""

from asyncio import gather
from datetime import UTC, datetime

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.commands import ON_SQLITE, Run
from tests.support.credits import win
from worker.cli.exit_codes import ExitCode
from worker.database.schema import served_integrations
from worker.integrations import assign
from worker.ledger.transaction import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.any_server]

BRAND2_IS_AWAY = {
    "CREDITS_CELLS__BRAND2__LEDGER__DATABASE_URL": "postgresql+asyncpg://user:hunter2@127.0.0.1:1/db",
    "CREDITS_INTEGRATIONS__KLAS__PROVIDER": "klas",
    "CREDITS_INTEGRATIONS__GPAS__PROVIDER": "gpas",
    "CREDITS_INTEGRATIONS__GPAS__CELL": "brand2",
}


@ON_SQLITE
async def test_what_a_cell_that_is_away_may_have_is_never_said_to_be_missing(engine: AsyncEngine, worker: Run) -> None:
    await Ledger(engine).post([win("in-main")])
    missing, paid, player, verified, migrated, own = await gather(
        worker("transfer", "show", "w", "--integration", "gpas", **BRAND2_IS_AWAY),
        worker("transfer", "show", "in-main", "--integration", "klas", **BRAND2_IS_AWAY),
        worker("player", "show", "anna", **BRAND2_IS_AWAY),
        worker("verify", **BRAND2_IS_AWAY),
        worker("migrate", **BRAND2_IS_AWAY),
        worker("player", "show", "anna", **BRAND2_IS_AWAY, CREDITS_CELL="main"),
    )
    for ended in (missing, player, verified, migrated):
        assert "incomplete: no answer from cell brand2" in ended.error(ExitCode.DATABASE)
        assert "hunter2" not in ended.err
    assert paid.code == ExitCode.OK
    assert paid.out.startswith("cell main\npaid: 10.50 EUR")
    assert "cell brand2 was not asked" in paid.err
    assert "cell main" in player.out, "what is there is shown"
    assert "holds" in verified.out
    assert "serves" not in migrated.out, "nothing is assigned while a cell may have it"
    assert (own.code, own.err) == (ExitCode.OK, "")
    assert not own.out.startswith("cell")


@ON_SQLITE
async def test_what_a_cell_that_settings_name_no_more_has_paid_is_not_said_to_be_unpaid(
    engine: AsyncEngine, worker: Run
) -> None:
    """The books that are left know which cell served the integration; what it paid only that cell knows."""
    await assign({"main": engine}, {"main": ["klas"]})
    async with engine.begin() as connection:
        row = {"integration": "gpas", "since": datetime.now(UTC), "cell": "brand2"}
        await connection.execute(served_integrations.insert().values(row))
    moved = {"CREDITS_INTEGRATIONS__GPAS__PROVIDER": "gpas", "CREDITS_INTEGRATIONS__KLAS__PROVIDER": "klas"}
    *unknown, unpaid = await gather(
        worker("transfer", "show", "w", "--integration", "gpas", **moved),
        worker("transfer", "show", "w", "--integration", "gpas", "--json", **moved),
        worker("round", "show", "r", "--integration", "gpas", **moved),
        worker("session", "show", "s", "--integration", "gpas", **moved),
        worker("transfer", "show", "w", "--integration", "klas", **moved),
    )
    for ended in unknown:
        assert "not known here: cell brand2 serves gpas" in ended.error(ExitCode.DATABASE)
        assert not ended.out
    assert "not paid" in unpaid.error(ExitCode.NOT_PAID)
