"""The dedup cache on a real Redis: it saves the database work, and can cost nothing but time."""

import asyncio
import time

import msgspec
import pytest
from redis.asyncio import Redis

from tests.support.caches import LATER, ONE, TWO, cache_on, key_of, put, transfer
from tests.support.servers import Servers
from worker.ledger.cache.circuit import PAUSE_SECONDS
from worker.ledger.cache.outcomes import MEMORY_TRANSFERS_MAX, MemoryCache, RedisCache
from worker.ledger.cache.values import VALUES_BYTES_MAX

pytestmark = pytest.mark.own_servers("redis")


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
        assert taking_over.get_local(transfers) == {}
        assert await taking_over.get([ONE]) == {ONE: transfers[ONE]}
        await redis.flushdb()
        assert taking_over.get_local(transfers) == {ONE: transfers[ONE]}
    assert cache.get_local(transfers) == transfers
    cache.set_epoch(LATER)
    assert cache.get_local(transfers) == {}


async def test_win_of_another_integration_or_id_is_not_taken_for_it(cache: RedisCache) -> None:
    await put(cache, {("klas", "1:2"): transfer()})
    assert await cache.get([("klas", "1"), ("gpas", "1:2"), ("klas", "2"), ("klas", "1:2 ")]) == {}


async def test_restored_ledger_forgets_what_the_lost_one_remembered(servers: Servers, cache: RedisCache) -> None:
    await put(cache, {ONE: transfer()})
    async with cache_on(servers.cache_url, epoch=LATER) as restored:
        assert await restored.get([ONE]) == {}


async def test_win_is_forgotten_after_its_time(servers: Servers, redis: Redis) -> None:
    async with cache_on(servers.cache_url, ttl_seconds=1) as cache:
        await put(cache, {ONE: transfer()})
        assert await cache.get([ONE])
        assert 0 < await redis.pttl(key_of(ONE)) <= 1_000
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
    await redis.set(key_of(ONE), value)
    assert list(await cache.get([ONE, TWO])) == [TWO]
    await put(cache, {ONE: transfer()})
    assert list(await cache.get([ONE])) == [ONE]


async def test_key_of_another_type_is_a_miss(redis: Redis, cache: RedisCache) -> None:
    await redis.rpush(key_of(ONE), "a list")
    await put(cache, {TWO: transfer()})
    assert list(await cache.get([ONE, TWO])) == [TWO]


async def test_of_values_that_are_long_together_as_many_are_found_as_an_answer_may_have(
    servers: Servers, cache: RedisCache
) -> None:
    number = 400
    transfers = {("klas", str(n)): transfer(round_id="x" * 14_000) for n in range(number)}
    await put(cache, transfers)
    faults: list[str] = []
    async with cache_on(servers.cache_url, count=faults.append) as other_worker:
        found = await other_worker.get(transfers)
        assert VALUES_BYTES_MAX // 16_384 < len(found) < number
        assert found.items() <= transfers.items()
        missed = transfers.keys() - found.keys()
        assert await other_worker.get(missed) == {one: transfers[one] for one in missed}
    assert not faults


async def test_full_cache_costs_no_more_than_a_miss(redis: Redis, cache: RedisCache) -> None:
    await redis.config_set("maxmemory", "1")
    try:
        await put(cache, {ONE: transfer()})
    finally:
        await redis.config_set("maxmemory", "0")
    assert await cache.get([ONE]) == {}


async def test_slow_cache_costs_its_time_limit_once_and_is_then_left_alone(servers: Servers, redis: Redis) -> None:
    async with cache_on(servers.cache_url, timeout_seconds=0.05) as cache:
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
            other = ("klas", str((step + 7) % 20))
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


async def test_memory_of_one_process_is_bounded() -> None:
    cache = MemoryCache()
    one = transfer()
    await put(cache, {("klas", str(n)): one for n in range(MEMORY_TRANSFERS_MAX)})
    await put(cache, {("gpas", "new"): one})
    assert list(cache.get_local([("klas", "0"), ("klas", "1"), ("gpas", "new")])) == [
        ("klas", "1"),
        ("gpas", "new"),
    ]
