"""The direct baseline is a yardstick only if it pays, guards and answers as the ledger does."""

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.operations import Credit, Wallet
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindPlayer
from tests.bench.baseline import DirectLedger
from tests.bench.subjects import embedded
from tests.support.credits import win
from tests.support.ledgers import add_players, assert_books_hold, balance_minor
from tests.support.servers import Servers
from worker.database.schema import transfers
from worker.ledger.transaction import Ledger

pytestmark = pytest.mark.any_server


async def ask(direct: DirectLedger, credit: Credit) -> Outcome:
    answer = await direct.call(credit, deadline=0)
    assert isinstance(answer, Outcome)
    return answer


async def test_baseline_keeps_the_same_books(postgres: AsyncEngine) -> None:
    """What it writes of a win is, but for ids and time, what the ledger writes of the same one."""
    await add_players(postgres)
    direct, ledger = DirectLedger(postgres), Ledger(postgres)
    paid = await ask(direct, win("direct", round_closed=True, wallet=Wallet.BONUS, details={"reason": "win"}))
    late = await ask(direct, win("late"))
    (same,) = (
        await ledger.post([win("ledger", round_closed=True, wallet=Wallet.BONUS, details={"reason": "win"})])
    ).outcomes
    assert [paid.code, late.code, same.code] == [OutcomeCode.POSTED] * 3
    assert paid.receipt is not None
    assert paid.receipt.balance_minor == 1_050
    async with postgres.connect() as connection:
        rows = [row._asdict() for row in await connection.execute(select(transfers).order_by(transfers.c.id))]
    assert [row["after_round_closed"] for row in rows] == [False, True, True]
    kept_apart = {"id", "provider_tx_id", "posted_at", "after_round_closed", "real_balance_minor"}
    first, _, last = ({k: v for k, v in row.items() if k not in kept_apart} for row in rows)
    assert first | {"bonus_balance_minor": 2_100} == last
    assert await balance_minor(ledger) == 3_150
    await assert_books_hold(postgres)


@pytest.mark.parametrize(
    ("credit", "result"),
    [
        (win("paid"), OutcomeCode.REPLAYED),
        (win("paid", amount_minor=1), OutcomeCode.CONFLICT),
        (win("new", player_id="nobody"), OutcomeCode.UNKNOWN_PLAYER),
        (win("new", currency="USD"), OutcomeCode.WRONG_CURRENCY),
        (win("new", amount_minor=0), OutcomeCode.POSTED),
        (win("new", session_id="s", open_session_only=True), OutcomeCode.SESSION_CLOSED),
    ],
)
async def test_baseline_refuses_what_the_ledger_refuses(
    postgres: AsyncEngine, credit: Credit, result: OutcomeCode
) -> None:
    await add_players(postgres)
    direct = DirectLedger(postgres)
    await ask(direct, win("paid"))
    assert (await ask(direct, credit)).code is result
    assert await balance_minor(Ledger(postgres)) == 1_050
    assert direct.limit.in_flight == 0
    assert await direct.call(FindPlayer("nobody"), deadline=0) is None
    await assert_books_hold(postgres)


async def test_embedded_gateway_is_measured_on_books_of_its_own(servers: Servers) -> None:
    """It is a worker as well, and so the one gateway that is told where its database is."""
    async with embedded(servers) as subject:
        assert subject.engine is not None
        assert subject.engine.dialect.name == "sqlite"
        assert await subject.transfers() == 0
