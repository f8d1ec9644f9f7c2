"""A system whose connections are all TLS, verified; and what is said of a wrong authority or password."""

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.providers.base import Win
from simulator.history import ReplyMeaning
from simulator.senders import Senders
from tests.support.caches import EPOCH, LATER, ONE, cache_on, put, transfer
from tests.support.commands import Ended, run
from tests.support.fake_sentinel import fake_sentinel
from tests.support.servers.tls import (
    REDIS_PASSWORD,
    Authority,
    TlsServers,
    make_authority,
    running_tls_servers,
)
from tests.support.system import System, _environment, running_system
from worker.cli.exit_codes import ExitCode
from worker.ledger.cache import sentinels

pytestmark = [pytest.mark.servers, pytest.mark.any_server]

PASSWORD = "not-the-password"
FOUND_WITHIN_SECONDS = 60.0


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A directory that the servers' own users can read in, unlike pytest's."""
    with tempfile.TemporaryDirectory(prefix="credits-tls-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return make_authority(directory / "authority")


@pytest.fixture(scope="module")
def other_authority(directory: Path) -> Authority:
    """An authority that has certified none of the servers."""
    return make_authority(directory / "other")


@pytest.fixture(scope="module")
def tls(directory: Path, authority: Authority) -> Iterator[TlsServers]:
    with running_tls_servers(directory / "servers", authority) as servers:
        yield servers


def settings(tls: TlsServers, authority: Authority) -> dict[str, str]:
    return {
        "CREDITS_BROKER__URL": tls.broker_url(authority),
        "CREDITS_LEDGER__DATABASE_URL": tls.database_url(authority),
        "CREDITS_CACHE__URL": tls.cache_url(authority),
        "CREDITS_CACHE__TIMEOUT_SECONDS": "1",  # a busy machine is not a slow Redis
    }


@pytest.fixture
async def system(tls: TlsServers, authority: Authority) -> AsyncIterator[System]:
    url = tls.database_url(authority)
    async with running_system(tls.servers, workers=1, database_url=url, **settings(tls, authority)) as running:
        await running.add_players(["anna"])
        yield running


async def test_win_is_paid_over_tls_to_all_three_servers(tls: TlsServers, system: System) -> None:
    senders = Senders(system.url, system.providers, [])
    win = Win("5e5f5bd2-0f9f-4f3e-9d58-6a3d9d2a0c11", "anna", "")
    assert await senders.send_one("klas", win) is ReplyMeaning.PAID
    (worker,) = system.workers
    await worker.end()
    worker.start()
    await system.until_ready()
    assert await senders.send_one("klas", win) is ReplyMeaning.PAID
    senders.close()
    assert await system.query("SELECT count(*) FROM transfers") == [(1,)]
    unencrypted = (
        "SELECT count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE backend_type = 'client backend'"
    )
    assert await system.query(unencrypted) == [(0,)]
    broker = tls.servers.rabbitmq.run("rabbitmqctl", "--quiet", "list_connections", "ssl").split()
    assert set(broker) - {"ssl"} == {"true"}
    assert "cache rests" not in worker.log.read_text()
    cached = tls.servers.redis.run(
        *("redis-cli", "-p", tls.servers.redis.url.rpartition(":")[2].partition("/")[0]),
        *("--no-auth-warning", "-a", "a-password-of-redis", "DBSIZE"),
    )
    assert int(cached) >= 1


@asynccontextmanager
async def sentinel_url(tls: TlsServers, authority: Authority) -> AsyncIterator[str]:
    """Serve as a sentinel over TLS that names Redis' port; yield the cache's URL but for its authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(authority.server_certificate, authority.server_key)
    async with fake_sentinel(("localhost", tls.ports["redis"]), tls=context) as sentinel:
        yield f"rediss+sentinel://:{REDIS_PASSWORD}@localhost:{sentinel.port}/mymaster/0?ssl_ca_certs="


async def test_sentinel_and_the_redis_that_it_names_are_asked_over_tls(tls: TlsServers, authority: Authority) -> None:
    async with sentinel_url(tls, authority) as url, cache_on(f"{url}{authority.certificate}") as cache:
        async with asyncio.timeout(FOUND_WITHIN_SECONDS):
            while not await cache.get([ONE]):
                await put(cache, {ONE: transfer()})
                await asyncio.sleep(0.01)
                cache.set_epoch(LATER)  # so that nothing is remembered here
                cache.set_epoch(EPOCH)


async def test_sentinel_of_another_authority_is_named_as_an_error(
    monkeypatch: pytest.MonkeyPatch, tls: TlsServers, authority: Authority, other_authority: Authority
) -> None:
    monkeypatch.setattr(sentinels, "ANSWER_SECONDS_MAX", FOUND_WITHIN_SECONDS)
    async with sentinel_url(tls, authority) as url:
        with capture_logs() as logged:
            async with cache_on(f"{url}{other_authority.certificate}"), asyncio.timeout(FOUND_WITHIN_SECONDS):
                while not logged:
                    await asyncio.sleep(0.01)
    (line,) = logged
    assert (line["event"], line["error"]) == ("cache refuses us", "PrimaryUnknown")
    assert "certificate verify failed" in line["reason"]


async def start(tls: TlsServers, authority: Authority, *, process: str = "run", **wrong: str) -> Ended:
    environment = {**_environment(), **settings(tls, authority), **wrong}
    url = environment.pop("CREDITS_LEDGER__DATABASE_URL")
    return await run(url, process, **environment)


def refused(ended: Ended, setting: str, reason: str) -> bool:
    """Tell whether a start was refused in one line about a setting, which holds no password."""
    line = ended.error(ExitCode.SETTINGS)
    return setting in line and reason in line and PASSWORD not in ended.err


@pytest.mark.parametrize("process", ["run", "operator", "verify"])
async def test_database_of_another_authority_stops_the_start(
    tls: TlsServers, authority: Authority, other_authority: Authority, process: str
) -> None:
    url = tls.database_url(other_authority)
    tokens = {"CREDITS_OPERATOR__TOKENS": '["a-token-of-the-tests-alone"]'}
    ended = await start(tls, authority, process=process, CREDITS_LEDGER__DATABASE_URL=url, **tokens)
    assert refused(ended, "[ledger] database_url", "certificate verify failed")


async def test_wrong_password_of_the_database_stops_the_start(tls: TlsServers, authority: Authority) -> None:
    url = tls.database_url(authority, password=PASSWORD)
    ended = await start(tls, authority, CREDITS_LEDGER__DATABASE_URL=url)
    assert refused(ended, "[ledger] database_url", "password authentication failed")


async def test_broker_of_another_authority_stops_the_start(
    tls: TlsServers, authority: Authority, other_authority: Authority
) -> None:
    ended = await start(tls, authority, CREDITS_BROKER__URL=tls.broker_url(other_authority))
    assert refused(ended, "[broker] url", "certificate verify failed")


async def test_wrong_password_of_the_broker_stops_the_start(tls: TlsServers, authority: Authority) -> None:
    ended = await start(tls, authority, CREDITS_BROKER__URL=tls.broker_url(authority, PASSWORD))
    assert refused(ended, "[broker] url", "Login was refused")
