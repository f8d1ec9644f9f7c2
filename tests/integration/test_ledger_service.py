"""Whom a worker asks for an answer: what it recalls, the ledger, Redis; and whom it believes."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerUnavailable
from shared.money import Currencies
from shared.operations import Credit
from shared.outcome import OutcomeCode
from shared.settings import LedgerSettings
from tests.support.caches import cache_on, put, transfer
from tests.support.credits import WIN, win
from tests.support.servers import Servers
from worker.database.engine import create_engine
from worker.database.schema import conflicts
from worker.ledger.cache.outcomes import Cache, MemoryCache, RedisCache
from worker.ledger.planner import Plan
from worker.ledger.service import HALVED_OPERATIONS_MIN, LedgerService, half_of
from worker.ledger.transaction import Ledger
from worker.players import add_player
from worker.verify import verify

pytestmark = pytest.mark.own_servers("redis")


async def settle_in_any_weather(bookkeeper: LedgerService, name: str) -> list[tuple[OutcomeCode, tuple[str, ...]]]:
    """Send new, repeated, altered and impossible wins; return what came of them."""
    first = [win(f"{name}-{n}", amount_minor=n) for n in range(5)]
    again = [*first, win(f"{name}-1", amount_minor=9), win(name, player_id="nobody")]
    outcomes = [*await bookkeeper.post(first), *await bookkeeper.post(again)]
    return [(outcome.code, outcome.mismatched_fields) for outcome in outcomes]


async def test_answers_are_the_same_with_redis_stopped_before_during_and_after(
    servers: Servers, postgres: AsyncEngine, cache: RedisCache
) -> None:
    await add_player(postgres, "anna", "EUR")
    bookkeeper = LedgerService(Ledger(postgres), cache)
    (original,) = await bookkeeper.post([WIN])
    with_redis = await settle_in_any_weather(bookkeeper, "before")
    await asyncio.to_thread(servers.redis.stop)
    try:
        without = await settle_in_any_weather(bookkeeper, "during")
        (told_without,) = await bookkeeper.post([WIN])
    finally:
        await asyncio.to_thread(servers.redis.start)
    afterwards = await settle_in_any_weather(bookkeeper, "after")
    (told_after,) = await bookkeeper.post([WIN])
    assert with_redis == without == afterwards
    assert [result for result, _ in without] == [
        *[OutcomeCode.POSTED] * 5,
        *[OutcomeCode.REPLAYED] * 5,
        OutcomeCode.CONFLICT,
        OutcomeCode.UNKNOWN_PLAYER,
    ]
    assert told_without.receipt == told_after.receipt == original.receipt
    audit = await verify(postgres, Currencies())
    assert (audit.holds, audit.transfers) == (True, 16)


async def test_repeat_that_the_cache_remembers_asks_the_database_nothing(
    postgres: AsyncEngine, cache: RedisCache
) -> None:
    await add_player(postgres, "anna", "EUR")
    (posted,) = await LedgerService(Ledger(postgres), cache).post([WIN])
    without_database = LedgerService(Ledger(_no_database()), cache, epoch_known_until=math.inf)
    cache.set_epoch(await Ledger(postgres).keyed_epoch())
    (outcome,) = await without_database.post([WIN])
    assert (outcome.code, outcome.receipt) == (OutcomeCode.REPLAYED, posted.receipt)


class Asked:
    """A bookkeeper, and what it asked of whom."""

    def __init__(self, ledger: Ledger, cache: RedisCache, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.bookkeeper = LedgerService(ledger, cache)
        for asked, name in ((ledger, "post_new"), (ledger, "post"), (cache, "get")):
            monkeypatch.setattr(asked, name, self._noted(name, getattr(asked, name)))

    def _noted(self, name: str, call: Any) -> Any:
        async def noted(argument: Any) -> Any:
            self.calls.append(name)
            return await call(argument)

        return noted

    async def settle(self, *credits_: Credit) -> list[OutcomeCode]:
        self.calls.clear()
        return [outcome.code for outcome in await self.bookkeeper.post(credits_)]


async def test_redis_is_asked_only_when_not_all_is_new_or_recalled(
    servers: Servers, postgres: AsyncEngine, cache: RedisCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_player(postgres, "anna", "EUR")
    asked = Asked(Ledger(postgres), cache, monkeypatch)
    assert await asked.settle(WIN, win("win-2")) == [OutcomeCode.POSTED] * 2
    assert await asked.settle(WIN, win("win-3")) == [OutcomeCode.REPLAYED, OutcomeCode.POSTED]
    assert asked.calls == ["post_new"]
    assert await asked.settle(WIN, win("win-2")) == [OutcomeCode.REPLAYED] * 2
    assert asked.calls == []
    await cache.get([])
    async with cache_on(servers.cache_url, epoch=await Ledger(postgres).keyed_epoch()) as empty:
        taking_over = Asked(Ledger(postgres), empty, monkeypatch)
        assert await taking_over.settle(WIN, win("win-4")) == [OutcomeCode.REPLAYED, OutcomeCode.POSTED]
        assert taking_over.calls == ["post_new", "get", "post"]
        assert await taking_over.settle(win("win-3")) == [OutcomeCode.REPLAYED]
        assert taking_over.calls == ["get"], "the guess that all is new has just failed"
        assert await taking_over.settle(win("win-5")) == [OutcomeCode.POSTED]
        assert taking_over.calls == ["post_new"]


async def test_conflict_is_written_down_even_if_the_cache_could_tell_it(
    postgres: AsyncEngine, cache: RedisCache
) -> None:
    await add_player(postgres, "anna", "EUR")
    bookkeeper = LedgerService(Ledger(postgres), cache)
    await bookkeeper.post([WIN])
    for _ in range(2):
        (outcome,) = await bookkeeper.post([win(amount_minor=1)])
        assert (outcome.code, outcome.mismatched_fields) == (OutcomeCode.CONFLICT, ("amount_minor",))
    async with postgres.connect() as connection:
        assert (await connection.execute(select(conflicts.c.offered))).scalars().all() == ['{"amount_minor":1}']


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_cache_that_tells_of_a_lost_commit_is_not_believed_after_the_epoch_is_bumped(
    postgres: AsyncEngine, cache: RedisCache, kind: str
) -> None:
    """The database was restored to before the win was posted, and the cache still says that it was paid."""
    await add_player(postgres, "anna", "EUR")
    ledger = Ledger(postgres)
    lying: Cache = cache if kind == "redis" else MemoryCache()
    bookkeeper = LedgerService(ledger, lying)
    lying.set_epoch(await ledger.keyed_epoch())
    never_committed = {name: getattr(WIN, name) for name in Credit.FINGERPRINT}
    await put(lying, {WIN.identity: transfer(**never_committed)})
    (lie,) = await bookkeeper.post([WIN])
    assert lie.code is OutcomeCode.REPLAYED
    await ledger.bump_epoch()
    bookkeeper.epoch_known_until = 0.0  # as a moment later
    (paid,) = await bookkeeper.post([WIN])
    assert paid.code is OutcomeCode.POSTED


PLAYERS = [f"player-{n}" for n in range(20)]


def large_batch() -> list[Credit]:
    """Return wins enough to be posted in halves, of players in both."""
    batch = [
        win(f"win-{n}", player_id=PLAYERS[n % len(PLAYERS)], amount_minor=1 + n)
        for n in range(2 * HALVED_OPERATIONS_MIN)
    ]
    assert {half_of(credit) for credit in batch} == {0, 1}
    return batch


async def test_large_batch_is_answered_in_its_order_and_each_player_sees_what_came_before(
    postgres: AsyncEngine,
) -> None:
    for player_id in PLAYERS:
        await add_player(postgres, player_id, "EUR")
    batch = large_batch()
    strange = [win("nobody's", player_id="nobody"), batch[0], batch[1]]
    outcomes = await LedgerService(Ledger(postgres), MemoryCache()).post([*batch, *strange])
    balances = dict.fromkeys(PLAYERS, 0)
    for credit, outcome in zip(batch, outcomes, strict=False):
        balances[credit.player_id] += credit.amount_minor
        assert outcome.code is OutcomeCode.POSTED
        assert outcome.receipt is not None
        assert outcome.receipt.real_balance_minor == balances[credit.player_id]
    assert [o.code for o in outcomes[len(batch) :]] == [
        OutcomeCode.UNKNOWN_PLAYER,
        OutcomeCode.REPLAYED,
        OutcomeCode.REPLAYED,
    ]
    audit = await verify(postgres, Currencies())
    assert (audit.holds, audit.transfers) == (True, len(batch))


async def test_id_that_two_players_have_in_one_large_batch_is_paid_to_one(postgres: AsyncEngine) -> None:
    for player_id in PLAYERS:
        await add_player(postgres, player_id, "EUR")
    batch = large_batch()
    other = next(credit for credit in batch if half_of(credit) != half_of(batch[0]))
    stolen = msgspec.structs.replace(batch[0], player_id=other.player_id)
    outcomes = await LedgerService(Ledger(postgres), MemoryCache()).post([*batch, stolen])
    assert {outcomes[0].code, outcomes[-1].code} == {OutcomeCode.POSTED, OutcomeCode.CONFLICT}
    assert {outcome.code for outcome in outcomes[1:-1]} == {OutcomeCode.POSTED}
    audit = await verify(postgres, Currencies())
    assert (audit.holds, audit.transfers) == (True, len(batch))


async def test_half_of_a_large_batch_that_meets_an_outage_leaves_the_other_posted(
    postgres: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for player_id in PLAYERS:
        await add_player(postgres, player_id, "EUR")
    batch, ledger = large_batch(), Ledger(postgres)
    post_new = ledger.post_new

    async def unavailable_to_the_odd(credits_: Sequence[Credit]) -> Plan | None:
        if half_of(credits_[0]):
            raise LedgerUnavailable("the database: gone")
        return await post_new(credits_)

    monkeypatch.setattr(ledger, "post_new", unavailable_to_the_odd)
    bookkeeper = LedgerService(ledger, MemoryCache())
    with pytest.raises(LedgerUnavailable):
        await bookkeeper.post(batch)
    monkeypatch.undo()
    outcomes = await bookkeeper.post(batch)
    assert [outcome.code for outcome in outcomes] == [
        OutcomeCode.POSTED if half_of(credit) else OutcomeCode.REPLAYED for credit in batch
    ]


def _no_database() -> AsyncEngine:
    return create_engine(LedgerSettings(database_url="postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"))
