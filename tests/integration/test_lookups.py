"""A question that has no answer harms nobody: the worker lives on, and all others get theirs."""

from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.outcome import Balance, Outcome, OutcomeCode
from shared.queries import FindPlayer, FindSession, Query
from shared.wire import Answer
from tests.support.crashes import METRICS, UnluckyCache, UnluckyWorker
from tests.support.credits import WIN
from tests.support.ledgers import add_players, assert_books_hold
from tests.support.queues import Queues, batch_of
from worker.database.schema import players, wallets
from worker.players import open_session

LONG: Final = "x" * 100_000
OF_NOBODY: Final = (
    FindPlayer("a\0nna"),
    FindPlayer("anna\0"),
    FindPlayer(LONG),
    FindSession("gpas", "\0"),
    FindSession("gpas\0", "session-1"),
    FindSession("gpas", LONG),
)
BALANCE: Final = Balance("anna", "EUR", WIN.amount_minor, 0)
ASK_AGAIN: Final = Outcome(OutcomeCode.UNAVAILABLE)


async def add_half_a_player(engine: AsyncEngine) -> None:
    """Add a player by hand, and forget the wallet for bonuses: no question about them can be answered."""
    player = {"id": "half", "currency": "EUR", "created_at": datetime.now(UTC)}
    wallet = {"id": uuid4(), "player_id": "half", "currency": "EUR", "kind": "REAL"}
    async with engine.begin() as connection:
        await connection.execute(insert(players).values(player))
        await connection.execute(insert(wallets).values(wallet | {"balance_minor": 0, "version": 0}))


async def told(engine: AsyncEngine, lookups: list[Query]) -> list[Answer]:
    """Have a worker answer lookups and, beside them, a win; return its answers to the lookups."""
    queues = Queues()
    worker = UnluckyWorker(engine, UnluckyCache(), queues)
    queues.live.append(batch_of(0, [WIN, *lookups]))
    worker.take()
    assert await worker.work(None)
    assert not worker.has_work
    [(_, reply)] = queues.replies
    paid, *found = reply.answers
    assert isinstance(paid, Outcome)
    assert paid.code is OutcomeCode.POSTED
    await assert_books_hold(engine)
    return found


def credits_counted() -> float:
    [credits_] = METRICS.credits.collect()
    return sum(sample.value for sample in credits_.samples if sample.name.endswith("_total"))


async def test_id_that_no_database_holds_belongs_to_nobody(engine: AsyncEngine) -> None:
    await add_players(engine)
    await open_session(engine, "gpas", "session-1", "anna")
    known = (FindPlayer("anna"), FindSession("gpas", "session-1"))
    answers = await told(engine, [known[0], *OF_NOBODY, known[1]])
    assert answers == [BALANCE, *[None] * len(OF_NOBODY), BALANCE]


@pytest.mark.parametrize("others", [0, 1, 6])
async def test_question_that_meets_a_defect_is_to_be_asked_again(engine: AsyncEngine, others: int) -> None:
    await add_players(engine)
    await add_half_a_player(engine)
    counted = credits_counted()
    with capture_logs() as logged:
        answers = await told(engine, [FindPlayer("half"), *(FindPlayer(f"player-{n}") for n in range(others))])
    assert answers == [ASK_AGAIN, *[None] * others]
    assert [(e["event"], e["log_level"]) for e in logged] == [("lookup failed", "error")]
    assert credits_counted() - counted == 1, "a question is no credit"
