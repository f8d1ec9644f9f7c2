"""Whoever reaches Redis, or stands in its place, can cost a miss, and never make a win look paid."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from shared.operations import Credit
from shared.outcome import OutcomeCode
from shared.settings import LedgerSettings
from tests.support.caches import EPOCH, ONE, TWO, cache_on, key_of, put, transfer
from tests.support.commands import run
from tests.support.credits import WIN, win
from tests.support.ledgers import assert_books_hold
from tests.support.servers import Servers, drop_database, fresh_database
from worker.cli.exit_codes import ExitCode
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.ledger.cache import circuit
from worker.ledger.cache.values import MAC_BYTES, VALUE_BYTES_MAX, CachedValues
from worker.ledger.epoch import Epoch
from worker.ledger.service import LedgerService
from worker.ledger.transaction import Ledger
from worker.players import add_player

pytestmark = pytest.mark.own_servers("redis")

TWIN = win("win-2")
"""Of the same content as WIN, under an id of its own: owed like any other."""


@pytest.fixture
async def ledger(servers: Servers) -> AsyncIterator[Ledger]:
    url = await fresh_database(servers)
    engine = create_engine(LedgerSettings(database_url=url))
    try:
        await migrate(engine)
        await add_player(engine, WIN.player_id, WIN.currency)
        yield Ledger(engine)
        await assert_books_hold(engine)
    finally:
        await engine.dispose()
        await drop_database(servers, url)


async def settle_after_restart(servers: Servers, ledger: Ledger, *credits_: Credit) -> list[OutcomeCode]:
    """Answer as a worker that has just started and remembers nothing itself."""
    async with cache_on(servers.cache_url, await ledger.keyed_epoch()) as cache:
        return [outcome.code for outcome in await LedgerService(ledger, cache).post(credits_)]


Poison = Callable[[bytes, Epoch], bytes]
POISONS: dict[str, Poison] = {
    "another win's value": lambda value, _: value,
    "a forged value": lambda value, epoch: _forged(value, Epoch(epoch.name, os.urandom(32))),
    "a value of another epoch": lambda value, epoch: _forged(value, Epoch("before", epoch.cache_key)),
    "its content under another's MAC": lambda value, epoch: value[:MAC_BYTES] + _forged(value, epoch)[MAC_BYTES:],
    "a value without a MAC": lambda value, _: msgspec.msgpack.encode(_transfer_in(value)),
    "a MAC cut short": lambda value, epoch: _forged(value, epoch)[1:],
}


def _transfer_in(value: bytes) -> list[object]:
    _integration, _provider_tx_id, fields = msgspec.msgpack.decode(value[MAC_BYTES:])
    return list(fields)


def _forged(value: bytes, epoch: Epoch) -> bytes:
    """Return a value of the right form that says that TWIN was posted."""
    return CachedValues(epoch).encode(TWIN.identity, transfer(**_named(_transfer_in(value))))


def _named(fields: list[object]) -> dict[str, object]:
    names = [field.name for field in msgspec.structs.fields(type(transfer()))]
    return dict(zip(names, fields, strict=True))


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
async def test_unpaid_win_is_paid_whatever_the_cache_says_of_it(
    servers: Servers, ledger: Ledger, poison: Poison
) -> None:
    epoch = await ledger.keyed_epoch()
    async with cache_on(servers.cache_url, epoch) as cache:
        await LedgerService(ledger, cache).post([WIN])
    async with Redis.from_url(servers.cache_url) as redis:
        value = await redis.get(key_of(WIN.identity, epoch))
        assert isinstance(value, bytes)
        for key in (key_of(TWIN.identity, epoch), f"credits:{epoch.name}:{':'.join(TWIN.identity)}"):
            await redis.set(key, poison(value, epoch))
    assert await settle_after_restart(servers, ledger, WIN, TWIN) == [
        OutcomeCode.REPLAYED,
        OutcomeCode.POSTED,
    ]
    assert await settle_after_restart(servers, ledger, WIN, TWIN) == [OutcomeCode.REPLAYED] * 2


async def test_values_that_do_not_verify_are_counted_and_logged_once_a_second(servers: Servers) -> None:
    counted: list[str] = []
    async with Redis.from_url(servers.cache_url) as redis:
        with capture_logs() as logged:
            async with cache_on(servers.cache_url, count=counted.append) as cache:
                await redis.set(key_of(ONE), b"garbage")
                await redis.rpush(key_of(TWO), "of another type")
                for _ in range(20):
                    assert await cache.get([ONE, TWO]) == {}
        await redis.delete(key_of(ONE), key_of(TWO))
    assert counted == ["unverified"] * 40
    assert {line["event"] for line in logged} == {"values in the cache do not verify"}
    assert sum(line["values"] for line in logged) == 40
    assert len(logged) < 20


async def test_huge_value_stays_in_redis(servers: Servers) -> None:
    """It is read no further than a value can be long: 100 MB would take longer than the call may."""
    async with Redis.from_url(servers.cache_url) as redis, cache_on(servers.cache_url) as cache:
        await redis.setrange(key_of(ONE), 100_000_000, b"x")
        await put(cache, {TWO: transfer()})
        before = await _bytes_sent(redis)
        async with cache_on(servers.cache_url) as other:
            assert list(await other.get([ONE, TWO])) == [TWO]
        assert await _bytes_sent(redis) - before < 4 * VALUE_BYTES_MAX
        await redis.delete(key_of(ONE))


async def _bytes_sent(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_net_output_bytes"])


ANSWERS = {
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "too few values": b"*1\r\n$1\r\nx\r\n",
    "too many values": b"*3\r\n$1\r\nx\r\n$1\r\nx\r\n$1\r\nx\r\n",
    "a number": b":7\r\n",
    "a text": b"+OK\r\n",
    "nothing": b"*-1\r\n",
    "errors in the place of values": b"*2\r\n-ERR a\r\n-LOADING b\r\n",
    "numbers in the place of values": b"*2\r\n:1\r\n:2\r\n",
    "values in values": b"*2\r\n*1\r\n$1\r\nx\r\n*0\r\n",
    "a value of a length that can't be": b"*2\r\n$99999999999999999999\r\n",
    "what nobody asked for": b">2\r\n$10\r\ninvalidate\r\n*0\r\n",
    "an unknown error": b"-EVERYTHING is wrong, with args beginning with: 'secret'\r\n",
    "its end": b"",
    "a truth of the newer protocol": b"#t\r\n",
    "a map of the newer protocol": b"%1\r\n+a\r\n+b\r\n",
}


@asynccontextmanager
async def in_place_of_redis(answer: bytes) -> AsyncIterator[str]:
    """Serve one answer to whatever is asked; nothing is hung up on but what gets no answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while await reader.read(65_536) and answer:
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
async def test_nothing_that_stands_in_the_place_of_redis_ends_a_worker(answer: bytes) -> None:
    async with in_place_of_redis(answer) as url:
        with capture_logs() as logged:
            async with cache_on(url, timeout_seconds=0.05) as cache:
                assert await cache.get([ONE, TWO]) == {}
                await put(cache, {ONE: transfer()})
        assert len(logged) <= 2, "one line a second, and the connection may not close well"
        assert "secret" not in str(logged)


async def test_whatever_the_client_raises_costs_a_miss(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody expected ended every worker, which was sent the same batch again."""

    async def unexpected(*_arguments: object, **_named: object) -> object:
        raise TypeError("AbstractConnection.__init__() got an unexpected keyword argument 'family'")

    counted: list[str] = []
    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 0.0)
    async with cache_on(servers.cache_url, count=counted.append) as cache:
        monkeypatch.setattr(Redis, "execute_command", unexpected)
        assert await cache.get([ONE]) == {}
        await put(cache, {ONE: transfer()})
        monkeypatch.setattr(Redis, "aclose", unexpected)
    assert counted.count("failed") == counted.count("refused") >= 2
    assert set(counted) == {"failed", "refused"}


ALLOWED = "+evalsha +script|load +getrange +set +ping"
"""What docs/operations/security.md and compose.yaml let a worker do, on keys credits:* alone."""


async def _command(redis: Redis, *words: str) -> None:
    await redis.execute_command(*words)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def account(servers: Servers, password: str) -> AsyncIterator[str]:
    """Make an account that may do no more than a worker needs; yield a URL with it."""
    async with Redis.from_url(servers.cache_url) as redis:
        rules = ["reset", "on", f">{password}", "~credits:*", *ALLOWED.split()]
        await _command(redis, "ACL", "SETUSER", "credits-test", *rules)
        try:
            yield servers.cache_url.replace("redis://", f"redis://credits-test:{password}@")
        finally:
            await _command(redis, "ACL", "DELUSER", "credits-test")


async def test_worker_needs_little_of_redis_and_may_do_nothing_else(servers: Servers) -> None:
    async with account(servers, "a-password") as url:
        async with Redis.from_url(servers.cache_url) as redis:
            await redis.script_flush()
        async with cache_on(url) as cache:
            await put(cache, {ONE: transfer()})
        async with cache_on(url) as other:
            assert list(await other.get([ONE])) == [ONE]
        async with Redis.from_url(url, protocol=2, driver_info=None) as redis:
            refused = [("GET", "credits:1"), ("KEYS", "*"), ("FLUSHALL",), ("CONFIG", "GET", "*")]
            refused += [("SET", "other", "1"), ("ACL", "LIST"), ("MONITOR",), ("DEL", "credits:1")]
            for command in refused:
                with pytest.raises(Exception, match=r"(?i)no permissions"):
                    await _command(redis, *command)


async def test_wrong_password_is_said_once_without_it_until_it_changes(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 0.0)
    async with account(servers, "a-password") as url:
        wrong = url.replace("a-password", "not-the-password")
        with capture_logs() as logged:
            async with cache_on(wrong, count=counted.append) as cache:
                for _ in range(5):
                    assert await cache.get([ONE]) == {}
                    await put(cache, {ONE: transfer()})
                async with Redis.from_url(servers.cache_url) as redis:
                    await _command(redis, "ACL", "SETUSER", "credits-test", "off")
                    await _command(redis, "ACL", "SETUSER", "credits-test", "on", ">not-the-password")
                await cache.get([TWO])
    refused, serves = logged
    assert (refused["event"], refused["log_level"]) == ("cache refuses us", "error")
    assert (refused["setting"], refused["error"]) == ("[cache] url", "AuthenticationError")
    assert "password" in refused["reason"]
    assert "not-the-password" not in str(logged)
    assert serves["event"] == "cache serves again"
    assert counted.count("refused") == counted.count("failed") >= 5


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ("/99999", "out of range"),
        ("/0?client_name=a%20b", "Client name"),
        ("/0?username=nobody&password=x", ""),
    ],
)
async def test_option_that_redis_refuses_is_named_once_as_an_error(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, odd: str, reason: str
) -> None:
    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 0.0)
    with capture_logs() as logged:
        async with cache_on(servers.cache_url.rpartition("/")[0] + odd) as cache:
            for _ in range(3):
                assert await cache.get([ONE]) == {}
    (line,) = logged
    assert (line["event"], line["log_level"]) == ("cache refuses us", "error")
    assert reason in line["reason"]


async def test_account_that_may_read_and_not_write_is_said_once_and_not_taken_for_mended(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 0.0)
    async with account(servers, "a-password") as url, Redis.from_url(servers.cache_url) as redis:
        await _command(redis, "ACL", "SETUSER", "credits-test", "-set")
        with capture_logs() as logged:
            async with cache_on(url) as cache:
                for _ in range(5):
                    await put(cache, {ONE: transfer()})
                    await cache.get([TWO])
                (refused,) = logged
                await _command(redis, "ACL", "SETUSER", "credits-test", "+set")
                await put(cache, {ONE: transfer()})
    assert refused["event"] == "cache refuses us"
    assert [line["event"] for line in logged[1:]] == ["cache serves again"]


@pytest.mark.slow
async def test_worker_with_an_option_that_no_driver_knows_does_not_start(tmp_path: Path) -> None:
    ended = await run(
        f"sqlite+aiosqlite:///{tmp_path}/ledger.db",
        "run",
        CREDITS_BROKER__URL="amqp://127.0.0.1:1/",
        CREDITS_CACHE__URL="redis://:a-password@127.0.0.1/6?family=0",
    )
    assert "url" in ended.error(ExitCode.SETTINGS)
    assert "a-password" not in ended.err


def test_epoch_does_not_show_its_key() -> None:
    assert "cache_key" not in repr(EPOCH)
    with pytest.raises(ValueError, match="32 bytes"):
        Epoch("an-epoch", b"")
