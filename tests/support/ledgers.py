"""A ledger under test: its first players, and short ways to post to it and to look at what came of it."""

from collections.abc import Sequence
from math import inf

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode, Receipt
from shared.queries import FindPlayer
from worker.ledger.cache.outcomes import MemoryCache
from worker.ledger.service import LedgerService
from worker.ledger.transaction import Ledger
from worker.players import add_player
from worker.verify import verify


async def add_players(engine: AsyncEngine) -> None:
    for player_id in ("anna", "ben"):
        await add_player(engine, player_id, "EUR")


async def assert_books_hold(engine: AsyncEngine) -> None:
    audit = await verify(engine, Currencies())
    assert audit.holds, [finding for finding in audit.findings if finding.broken]


async def post(ledger: Ledger, *credits_: Credit) -> list[Outcome]:
    """Post as a worker does that has no cache."""
    return await LedgerService(ledger, MemoryCache(), epoch_known_until=inf).post(credits_)


async def balance_minor(ledger: Ledger, player_id: str = "anna") -> int:
    holder = (await ledger.find([FindPlayer(player_id)]))[FindPlayer(player_id)]
    return holder.balance_minor


def receipt(outcome: Outcome) -> Receipt:
    assert outcome.receipt is not None
    return outcome.receipt


def results(outcomes: Sequence[Outcome]) -> list[OutcomeCode]:
    return [outcome.code for outcome in outcomes]
