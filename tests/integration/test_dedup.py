"""The dedup cache on a real Redis: it saves the database work, and can cost nothing but time."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.credit import FINGERPRINT, Credit
from shared.errors import SettingsError
from shared.money import Currencies
from shared.outcome import Result
from shared.settings import CacheSettings, LedgerSettings
from tests.credits import WIN, win
from tests.servers import Servers
from worker.bookkeeper import Bookkeeper
from worker.database import create_engine
from worker.dedup import MEMORY_TRANSFERS_MAX, PAUSE_SECONDS, Cache, MemoryCache, RedisCache
from worker.holders import add_player
from worker.ledger import Ledger
from worker.posting import Identity, Transfer
from worker.schema import conflicts
from worker.verify import verify

EPOCH = "an-epoch"


def transfer(**different: Any) -> Transfer:
    fields = {
        "id": str(uuid4()),
        "player_id": "anna",
        "currency": "EUR",
        "amount_minor": 1050,
        "kind": "win",
        "round_id": None,
        "game_id": None,
        "bet_id": None,
        "real_minor": 1050,
        "bonus_minor": 0,
        "real_balance_minor": 1050,
        "bonus_balance_minor": 0,
    }
    return Transfer(**{**fields, **different})


ONE: Identity = ("klas", "1")
TWO: Identity = ("klas", "2")


@asynccontextmanager
async def cache_on(url: str, epoch: str = EPOCH, **different: int) -> AsyncIterator[RedisCache]:
    settings = {"ttl_seconds": 60, "timeout_ms": 1_000, **different}  # a busy machine is not a slow Redis
    cache = RedisCache(CacheSettings(url=url, **settings), epoch)
    try:
        yield cache
    finally:
        await cache.close()


async def put(cache: Cache, transfers: Mapping[Identity, Transfer]) -> None:
    """Have a cache remember transfers, and wait until it has: a `get` does."""
    cache.put(transfers)
    await cache.get([])


@pytest.fixture
async def redis(servers: Servers) -> AsyncIterator[Redis]:
    """An empty Redis."""
    async with Redis.from_url(servers.cache_url) as client:
        await client.flushdb()
        yield client


@pytest.fixture
async def cache(servers: Servers, redis: Redis) -> AsyncIterator[RedisCache]:  # noqa: ARG001  (empty first)
    async with cache_on(servers.cache_url) as made:
        yield made


async def test_posted_win_is_remembered_by_every_worker(servers: Servers, cache: RedisCache) -> None:
    transfers = {ONE: transfer(), TWO: transfer(round_id="раунд", bonus_minor=7)}
    await put(cache, transfers)
    async with cache_on(servers.cache_url) as other_worker:
        assert await other_worker.get([TWO, ONE]) == transfers


async def test_worker_recalls_what_it_put_or_found_and_asks_nobody(
    servers: Servers, redis: Redis, cache: RedisCache
) -> None:
    transfers = {ONE: transfer(), TWO: transfer()}
    await put(cache, transfers)
    async with cache_on(servers.cache_url) as taking_over:
        assert taking_over.recall(transfers) == {}
        assert await taking_over.get([ONE]) == {ONE: transfers[ONE]}
        await redis.flushdb()
        assert taking_over.recall(transfers) == {ONE: transfers[ONE]}
    assert cache.recall(transfers) == transfers
    cache.enter(f"{EPOCH}-later")
    assert cache.recall(transfers) == {}


async def test_win_of_another_integration_or_id_is_not_taken_for_it(cache: RedisCache) -> None:
    await put(cache, {("klas", "1:2"): transfer()})
    assert await cache.get([("klas", "1"), ("gpas", "1:2"), ("klas", "2"), ("klas", "1:2 ")]) == {}


async def test_restored_ledger_forgets_what_the_lost_one_remembered(
    servers: Servers, cache: RedisCache
) -> None:
    await put(cache, {ONE: transfer()})
    async with cache_on(servers.cache_url, epoch=f"{EPOCH}-later") as restored:
        assert await restored.get([ONE]) == {}


async def test_win_is_forgotten_after_its_time(servers: Servers, redis: Redis) -> None:
    async with cache_on(servers.cache_url, ttl_seconds=1) as cache:
        await put(cache, {ONE: transfer()})
        assert await cache.get([ONE])
        assert 0 < await redis.pttl(f"credits:{EPOCH}:klas:1") <= 1_000
        await asyncio.sleep(1.1)
        assert await cache.get([ONE]) == {}


async def test_nothing_is_asked_about_no_win(cache: RedisCache) -> None:
    await put(cache, {})
    assert await cache.get([]) == {}


GARBAGE = {
    "text": b"garbage",
    "nothing": b"",
    "another version's": b"\x93\xa1a\xa1b\xa1c",
    "nested too deeply": b"\x9d" + msgspec.msgpack.encode(transfer())[1:] + b"\x91" * 100_000,
    "invalid UTF-8": b"\x9c\xa2\xff\xfe" + b"\xc0" * 11,
}


@pytest.mark.parametrize("value", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_in_the_cache_is_a_miss_and_hides_no_other_win(
    redis: Redis, cache: RedisCache, value: bytes
) -> None:
    await put(cache, {TWO: transfer()})
    await redis.set(f"credits:{EPOCH}:klas:1", value)
    assert list(await cache.get([ONE, TWO])) == [TWO]
    await put(cache, {ONE: transfer()})
    assert list(await cache.get([ONE])) == [ONE]


async def test_key_of_another_type_is_a_miss(redis: Redis, cache: RedisCache) -> None:
    await redis.rpush(f"credits:{EPOCH}:klas:1", "a list")
    await put(cache, {TWO: transfer()})
    assert list(await cache.get([ONE, TWO])) == [TWO]


async def test_full_cache_costs_no_more_than_a_miss(redis: Redis, cache: RedisCache) -> None:
    await redis.config_set("maxmemory", "1")
    try:
        await put(cache, {ONE: transfer()})
    finally:
        await redis.config_set("maxmemory", "0")
    assert await cache.get([ONE]) == {}


async def test_slow_cache_costs_its_time_limit_once_and_is_then_left_alone(
    servers: Servers, redis: Redis
) -> None:
    async with cache_on(servers.cache_url, timeout_ms=50) as cache:
        transfers = {ONE: transfer()}
        await put(cache, transfers)
        await redis.client_pause(1_500)
        started = time.monotonic()
        for _ in range(100):
            assert await cache.get([TWO, ONE]) == {}
            await put(cache, {TWO: transfer()})
        assert time.monotonic() - started < 0.9, "each of 200 calls waited"
        await asyncio.sleep(max(1.5, PAUSE_SECONDS))
        assert await cache.get([ONE]) == transfers


async def test_answer_that_nobody_waited_for_is_never_given_to_the_next_question(
    servers: Servers, redis: Redis
) -> None:
    """A call is cut off at any moment, and its reply arrives when the connection asks about another win."""
    async with cache_on(servers.cache_url) as cache:
        transfers = {("klas", str(n)): transfer(amount_minor=n) for n in range(20)}
        await put(cache, transfers)
        await redis.ping()
        for step in range(400):
            asked = [("klas", str(step % 20))]
            cut_off = asyncio.create_task(cache.get(asked))
            await asyncio.sleep(0.000_02 * (step % 40))
            cut_off.cancel()
            await asyncio.gather(cut_off, return_exceptions=True)
            other: Identity = ("klas", str((step + 7) % 20))
            assert await cache.get([other]) == {other: transfers[other]}


async def test_cache_that_was_down_is_used_again(servers: Servers, cache: RedisCache) -> None:
    await put(cache, {ONE: transfer()})
    await asyncio.to_thread(servers.redis.kill)
    try:
        assert await cache.get([ONE]) == {}
        await put(cache, {TWO: transfer()})
    finally:
        await asyncio.to_thread(servers.redis.start)
    async with asyncio.timeout(10):
        while not await cache.get([TWO]):
            await asyncio.sleep(0.1)
            await put(cache, {TWO: transfer()})


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost"])
def test_wrong_cache_url_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match=r"\[cache\] url"):
        RedisCache(CacheSettings(url=url), EPOCH)


async def test_memory_of_one_process_is_bounded() -> None:
    cache = MemoryCache()
    one = transfer()
    await put(cache, {("klas", str(n)): one for n in range(MEMORY_TRANSFERS_MAX)})
    await put(cache, {("gpas", "new"): one})
    assert list(cache.recall([("klas", "0"), ("klas", "1"), ("gpas", "new")])) == [
        ("klas", "1"),
        ("gpas", "new"),
    ]


async def settle_in_any_weather(bookkeeper: Bookkeeper, name: str) -> list[tuple[Result, tuple[str, ...]]]:
    """Send new, repeated, altered and impossible wins; return what came of them."""
    first = [win(f"{name}-{n}", amount_minor=n) for n in range(5)]
    again = [*first, win(f"{name}-1", amount_minor=9), win(name, player_id="nobody")]
    outcomes = [*await bookkeeper.settle(first), *await bookkeeper.settle(again)]
    return [(outcome.result, outcome.differing) for outcome in outcomes]


async def test_answers_are_the_same_with_redis_stopped_before_during_and_after(
    servers: Servers, postgres: AsyncEngine, cache: RedisCache
) -> None:
    await add_player(postgres, "anna", "EUR")
    bookkeeper = Bookkeeper(Ledger(postgres), cache)
    (original,) = await bookkeeper.settle([WIN])
    with_redis = await settle_in_any_weather(bookkeeper, "before")
    await asyncio.to_thread(servers.redis.stop)
    try:
        without = await settle_in_any_weather(bookkeeper, "during")
        (told_without,) = await bookkeeper.settle([WIN])
    finally:
        await asyncio.to_thread(servers.redis.start)
    afterwards = await settle_in_any_weather(bookkeeper, "after")
    (told_after,) = await bookkeeper.settle([WIN])
    assert with_redis == without == afterwards
    assert [result for result, _ in without] == [
        *[Result.POSTED] * 5,
        *[Result.REPLAYED] * 5,
        Result.CONFLICT,
        Result.UNKNOWN_PLAYER,
    ]
    assert told_without.receipt == told_after.receipt == original.receipt
    audit = await verify(postgres, Currencies())
    assert (audit.holds, audit.transfers) == (True, 16)


async def test_repeat_that_the_cache_remembers_asks_the_database_nothing(
    postgres: AsyncEngine, cache: RedisCache
) -> None:
    await add_player(postgres, "anna", "EUR")
    (posted,) = await Bookkeeper(Ledger(postgres), cache).settle([WIN])
    without_database = Bookkeeper(Ledger(_no_database()), cache, epoch_known_until=math.inf)
    cache.enter(await Ledger(postgres).epoch())
    (outcome,) = await without_database.settle([WIN])
    assert (outcome.result, outcome.receipt) == (Result.REPLAYED, posted.receipt)


class Asked:
    """A bookkeeper, and what it asked of whom."""

    def __init__(self, ledger: Ledger, cache: RedisCache, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.bookkeeper = Bookkeeper(ledger, cache)
        for asked, name in ((ledger, "post_new"), (ledger, "post"), (cache, "get")):
            monkeypatch.setattr(asked, name, self._noted(name, getattr(asked, name)))

    def _noted(self, name: str, call: Any) -> Any:
        async def noted(argument: Any) -> Any:
            self.calls.append(name)
            return await call(argument)

        return noted

    async def settle(self, *credits_: Credit) -> list[Result]:
        self.calls.clear()
        return [outcome.result for outcome in await self.bookkeeper.settle(credits_)]


async def test_redis_is_asked_only_when_not_all_is_new_or_recalled(
    servers: Servers, postgres: AsyncEngine, cache: RedisCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_player(postgres, "anna", "EUR")
    asked = Asked(Ledger(postgres), cache, monkeypatch)
    assert await asked.settle(WIN, win("win-2")) == [Result.POSTED] * 2
    assert await asked.settle(WIN, win("win-3")) == [Result.REPLAYED, Result.POSTED]
    assert asked.calls == ["post_new"]
    assert await asked.settle(WIN, win("win-2")) == [Result.REPLAYED] * 2
    assert asked.calls == []
    await cache.get([])
    async with cache_on(servers.cache_url, epoch=await Ledger(postgres).epoch()) as empty:
        taking_over = Asked(Ledger(postgres), empty, monkeypatch)
        assert await taking_over.settle(WIN, win("win-4")) == [Result.REPLAYED, Result.POSTED]
        assert taking_over.calls == ["post_new", "get", "post"]
        assert await taking_over.settle(win("win-3")) == [Result.REPLAYED]
        assert taking_over.calls == ["get"], "the guess that all is new has just failed"
        assert await taking_over.settle(win("win-5")) == [Result.POSTED]
        assert taking_over.calls == ["post_new"]


async def test_conflict_is_written_down_even_if_the_cache_could_tell_it(
    postgres: AsyncEngine, cache: RedisCache
) -> None:
    await add_player(postgres, "anna", "EUR")
    bookkeeper = Bookkeeper(Ledger(postgres), cache)
    await bookkeeper.settle([WIN])
    for _ in range(2):
        (outcome,) = await bookkeeper.settle([win(amount_minor=1)])
        assert (outcome.result, outcome.differing) == (Result.CONFLICT, ("amount_minor",))
    async with postgres.connect() as connection:
        assert (await connection.execute(select(conflicts.c.offered))).scalars().all() == [
            '{"amount_minor":1}'
        ]


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_cache_that_tells_of_a_lost_commit_is_not_believed_after_the_epoch_is_bumped(
    postgres: AsyncEngine, cache: RedisCache, kind: str
) -> None:
    """The database was restored to before the win was posted, and the cache still says that it was paid."""
    await add_player(postgres, "anna", "EUR")
    ledger = Ledger(postgres)
    lying: Cache = cache if kind == "redis" else MemoryCache()
    bookkeeper = Bookkeeper(ledger, lying)
    lying.enter(await ledger.epoch())
    never_committed = {name: getattr(WIN, name) for name in FINGERPRINT}
    await put(lying, {WIN.identity: transfer(**never_committed)})
    (lie,) = await bookkeeper.settle([WIN])
    assert lie.result is Result.REPLAYED
    await ledger.bump_epoch()
    bookkeeper.epoch_known_until = 0.0  # as a moment later
    (paid,) = await bookkeeper.settle([WIN])
    assert paid.result is Result.POSTED


def _no_database() -> AsyncEngine:
    return create_engine(LedgerSettings(database_url="postgresql+asyncpg://nobody@127.0.0.1:1/nowhere"))
