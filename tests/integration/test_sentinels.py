"""The cache behind sentinels: the primary is followed, and nothing that a sentinel does costs a win."""

import asyncio
import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from gateway.providers.base import Win
from simulator.history import ReplyMeaning
from simulator.senders import Senders
from tests.support.caches import ONE, TWO, cache_on, put, transfer
from tests.support.fake_sentinel import fake_sentinel, url_of
from tests.support.servers import Servers
from tests.support.servers.sentinels import (
    WORKER_PASSWORD,
    RedisServers,
    running_redis_servers,
    until,
)
from tests.support.servers.server import free_ports
from tests.support.system import running_system
from worker.ledger.cache import circuit, sentinels
from worker.ledger.cache.outcomes import Cache
from worker.ledger.state import Transfer

pytestmark = [pytest.mark.own_servers("redis"), pytest.mark.servers]

FOUND_WITHIN_SECONDS = 60.0
RESEND_AFTER_SECONDS = 1.5


@pytest.fixture(scope="module")
def redis_servers() -> Iterator[RedisServers]:
    with running_redis_servers() as running:
        yield running


@pytest.fixture
def place(servers: Servers) -> tuple[str, int]:
    """Host and port of the tests' Redis."""
    port = urlsplit(servers.cache_url).port
    assert port
    return "127.0.0.1", port


@pytest.fixture
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is not a silent sentinel."""
    monkeypatch.setattr(sentinels, "ANSWER_SECONDS_MAX", RESEND_AFTER_SECONDS)


async def until_kept(cache: Cache, url: str) -> Transfer:
    """Put ONE until another worker finds it, and return it."""
    kept = transfer()
    async with asyncio.timeout(FOUND_WITHIN_SECONDS):
        while True:
            await put(cache, {ONE: kept})
            async with cache_on(url) as other:
                if await find(other) == kept:
                    return kept
            await asyncio.sleep(0.05)


async def find(cache: Cache) -> Transfer | None:
    """Return ONE as the shared cache has it, once its first look is over."""
    for _ in range(50):
        if found := await cache.get([ONE]):
            return found[ONE]
        await asyncio.sleep(0.01)
    return None


async def test_wins_go_on_while_the_primary_is_dead_and_are_kept_on_the_promoted_replica(
    redis_servers: RedisServers,
) -> None:
    with capture_logs() as logged:
        async with cache_on(redis_servers.url, timeout_seconds=0.2, ttl_seconds=600) as cache:
            replicated = await until_kept(cache, redis_servers.url)
            killed = redis_servers.primary
            (replica,) = set(redis_servers.servers) - {killed}
            await asyncio.to_thread(until, lambda: redis_servers.keys(replica) > 0)
            await asyncio.to_thread(redis_servers.servers[killed].kill)
            assert await cache.get([TWO]) == {}
            await put(cache, {TWO: transfer()})
            async with asyncio.timeout(FOUND_WITHIN_SECONDS):
                while await cache.get([TWO]) == {}:
                    await asyncio.sleep(0.05)
                    await put(cache, {TWO: transfer()})
        async with cache_on(redis_servers.url) as taking_over:
            async with asyncio.timeout(FOUND_WITHIN_SECONDS):
                while await find(taking_over) is None:
                    pass
            assert await find(taking_over) == replicated
    assert redis_servers.primary == replica
    named = [line["primary"] for line in logged if line["event"] == "sentinels name the cache"]
    assert named[0] == f"127.0.0.1:{killed}"
    assert named[-1] == f"127.0.0.1:{replica}"
    assert all(line["log_level"] != "error" for line in logged), logged


@pytest.mark.parametrize(
    ("password", "name", "reason"),
    [
        ("not-the-password", "mymaster", "password"),
        (WORKER_PASSWORD, "another", "another"),
    ],
)
@pytest.mark.usefixtures("_no_pause", "_patience")
async def test_what_sentinels_refuse_is_said_once_without_the_password(
    redis_servers: RedisServers, password: str, name: str, reason: str
) -> None:
    counted: list[str] = []
    with capture_logs() as logged:
        async with cache_on(redis_servers.url_with(password, name), count=counted.append) as cache:
            async with asyncio.timeout(FOUND_WITHIN_SECONDS):
                while counted.count("refused") < 3:
                    assert await cache.get([ONE]) == {}
                    await put(cache, {ONE: transfer()})
                    await asyncio.sleep(0.01)
    (line,) = logged
    assert (line["event"], line["log_level"]) == ("cache refuses us", "error")
    assert (line["setting"], line["error"]) == ("[cache] url", "PrimaryUnknown")
    assert reason in line["reason"]
    assert "not-the-password" not in line["reason"]


async def test_account_of_workers_may_ask_sentinels_for_the_primary_and_nothing_else(
    redis_servers: RedisServers,
) -> None:
    port = next(iter(redis_servers.sentinels))
    refused = [("SENTINEL", "FAILOVER", "mymaster"), ("SENTINEL", "MASTERS"), ("SHUTDOWN",), ("ACL", "LIST")]
    refused += [("SENTINEL", "SET", "mymaster", "quorum", "1"), ("SENTINEL", "CONFIG", "GET", "*"), ("INFO",)]
    async with Redis(port=port, username="worker", password=WORKER_PASSWORD, driver_info=None, protocol=2) as one:
        for command in refused:
            with pytest.raises(Exception, match=r"(?i)no permissions"):
                await one.execute_command(*command)  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("_patience")
async def test_primary_of_the_latest_failover_counts_and_a_silent_sentinel_is_named(
    servers: Servers, place: tuple[str, int]
) -> None:
    async with (
        fake_sentinel(("127.0.0.1", 1), config_epoch=3) as cut_off,
        fake_sentinel(place, config_epoch=20) as right,
        fake_sentinel(place, answer=b"") as silent,
    ):
        with capture_logs() as logged:
            async with cache_on(url_of(cut_off, silent, right)) as cache:
                await until_kept(cache, servers.cache_url)
    named, fails = logged
    assert (named["event"], named["primary"]) == ("sentinels name the cache", f"127.0.0.1:{place[1]}")
    assert (fails["event"], fails["failing"], fails["others"]) == ("sentinels of the cache fail", 1, 2)
    assert fails["reason"] == f"127.0.0.1:{silent.port}: no answer within {RESEND_AFTER_SECONDS} s"


async def test_no_batch_waits_for_sentinels_that_do_not_answer(place: tuple[str, int]) -> None:
    async with fake_sentinel(place, answer=b"") as silent, cache_on(url_of(silent)) as cache:
        for _ in range(100):
            batch = asyncio.create_task(cache.get([ONE]))
            cache.put({ONE: transfer()})
            await asyncio.sleep(0)
            assert batch.done()
            assert batch.result() == {}


ANSWERS = {
    "no primary of that name": b"*-1\r\n",
    "an error": b"-ERR unknown command 'SENTINEL', with args beginning with: 'secret'\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a text": b"+OK\r\n",
    "too few values": b"*1\r\n$1\r\nx\r\n",
    "no port": b"*2\r\n$1\r\nx\r\n$1\r\ny\r\n",
    "a port that can't be": b"*2\r\n$12\r\nconfig-epoch\r\n$6\r\n999999\r\n",
    "no host": b"*2\r\n$0\r\n\r\n$4\r\n6379\r\n",
    "no epoch": b"*2\r\n$1\r\nx\r\n$4\r\n6379\r\n",
    "values in values": b"*2\r\n*1\r\n$1\r\nx\r\n*0\r\n",
    "what is no text": b"*2\r\n$2\r\n\xff\xfe\r\n$4\r\n6379\r\n",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_nothing_that_stands_in_the_place_of_a_sentinel_ends_a_worker(
    place: tuple[str, int], answer: bytes
) -> None:
    counted: list[str] = []
    async with fake_sentinel(place, answer=answer) as sentinel:
        with capture_logs() as logged:
            async with cache_on(url_of(sentinel), count=counted.append) as cache:
                async with asyncio.timeout(FOUND_WITHIN_SECONDS):
                    while not counted:
                        assert await cache.get([ONE]) == {}
                        await put(cache, {ONE: transfer()})
                        await asyncio.sleep(0.01)
    (line,) = logged
    assert line["event"] in {"cache refuses us", "cache rests"}
    assert line["error"] == "PrimaryUnknown"
    assert "secret" not in line["reason"]


@pytest.mark.parametrize("host", ["x" * 10_000, "a b", "a\nb", "..", "1::2::3"])
async def test_host_that_no_name_can_be_is_not_connected_to_nor_logged(host: str) -> None:
    counted: list[str] = []
    async with fake_sentinel((host, 6379)) as sentinel:
        with capture_logs() as logged:
            async with cache_on(url_of(sentinel), count=counted.append) as cache:
                async with asyncio.timeout(FOUND_WITHIN_SECONDS):
                    while not counted:
                        await cache.get([ONE])
                        await asyncio.sleep(0.01)
    (line,) = logged
    assert line["reason"].endswith("names no host and port")


@pytest.mark.usefixtures("_no_pause")
async def test_primary_that_has_become_a_replica_is_a_reason_to_ask_the_sentinels_and_no_error(
    servers: Servers, redis: Redis, place: tuple[str, int]
) -> None:
    async with fake_sentinel(place) as sentinel:
        with capture_logs() as logged:
            async with cache_on(url_of(sentinel)) as cache:
                await until_kept(cache, servers.cache_url)
                looks = sentinel.looks
                await redis.replicaof("127.0.0.1", 1)
                try:
                    async with asyncio.timeout(FOUND_WITHIN_SECONDS):
                        while sentinel.looks == looks:
                            await put(cache, {ONE: transfer()})
                            await asyncio.sleep(0.01)
                finally:
                    await redis.replicaof("NO", "ONE")
                await until_kept(cache, servers.cache_url)
    assert {line["event"] for line in logged} == {"sentinels name the cache", "cache rests"}


@pytest.mark.usefixtures("_no_pause")
async def test_replica_where_nobody_says_which_is_the_primary_is_an_error_until_it_is_promoted(
    servers: Servers, redis: Redis
) -> None:
    counted: list[str] = []
    with capture_logs() as logged:
        async with cache_on(f"{servers.cache_url}?client_name=worker", count=counted.append) as cache:
            await until_kept(cache, servers.cache_url)
            before = await connections(redis)
            await redis.replicaof("127.0.0.1", 1)
            try:
                async with asyncio.timeout(FOUND_WITHIN_SECONDS):
                    while before & await connections(redis) or len(counted) < 6:
                        await put(cache, {ONE: transfer()})
                        await asyncio.sleep(0.01)
            finally:
                await redis.replicaof("NO", "ONE")
            await until_kept(cache, servers.cache_url)
    refused, serves = logged
    assert (refused["event"], refused["log_level"]) == ("cache refuses us", "error")
    assert (refused["error"], serves["event"]) == ("ReadOnlyError", "cache serves again")
    assert "read only replica" in refused["reason"]
    assert set(counted) == {"failed", "refused"}


async def connections(redis: Redis) -> set[str]:
    """Return the connections of the worker under test, by their ids."""
    return {one["id"] for one in await redis.client_list() if one["name"] == "worker"}


async def test_worker_starts_and_pays_while_all_sentinels_are_away(servers: Servers) -> None:
    nobody = ",".join(f"127.0.0.1:{port}" for port in free_ports(3))
    url = f"redis+sentinel://{nobody}/mymaster"
    async with running_system(servers, workers=1, CREDITS_CACHE__URL=url) as system:
        await system.add_players(["anna"])
        senders = Senders(system.url, system.providers, [])
        win = Win("5e5f5bd2-0f9f-4f3e-9d58-6a3d9d2a0c12", "anna", "")
        for _ in range(2):
            assert await senders.send_one("klas", win) is ReplyMeaning.PAID
        senders.close()
        (worker,) = system.workers
        assert worker.is_running
        assert await system.query("SELECT count(*) FROM transfers") == [(1,)]
        logged = [json.loads(line) for line in worker.log.read_text().splitlines()]
    rests = next(line for line in logged if line["event"] == "cache rests")
    assert (
        rests["reason"] == f"no sentinel names a primary of 'mymaster': {nobody.replace(',', ', ')}: Connection refused"
    )
    assert {line["level"] for line in logged} <= {"info", "warning"}
