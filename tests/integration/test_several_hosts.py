"""A database URL of several servers: whichever is down, frozen or a replica, the primary is found at once."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerRefused, LedgerUnavailable
from shared.settings import LedgerSettings
from tests.faults.proxy import Proxy
from worker.database.connecting import RETRY_SECONDS
from worker.database.engine import create_engine
from worker.database.faults import outages_as_unavailable

SECONDS_MAX = 30
"""What a silent server may take: far more than all of these tests take."""


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which somebody listens and never says a word, as a frozen server does."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def among(postgres: AsyncEngine, *ports: int | None, password: str | None = None) -> str:
    """Return the URL of servers on these ports, None for the real one."""
    url = postgres.url
    places = tuple(f"127.0.0.1:{port or url.port}" for port in ports)
    several = url.set(host="", password=password or url.password).update_query_dict({"host": places})
    return several.render_as_string(hide_password=False).replace(f":{url.port}/", "/", 1)


async def ask(url: str, times: int = 1) -> list[int]:
    """Connect so many times at once; return the server's processes."""
    engine = create_engine(LedgerSettings(database_url=url, statement_seconds_max=SECONDS_MAX))

    async def process() -> int:
        with outages_as_unavailable():
            async with engine.connect() as connection:
                return int(await connection.scalar(text("SELECT pg_backend_pid()")) or 0)

    try:
        return await asyncio.gather(*(process() for _ in range(times)))
    finally:
        await engine.dispose()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_silent_server_keeps_nobody_from_the_primary(
    postgres: AsyncEngine, silent_port: int, order: tuple[int, int]
) -> None:
    places = (silent_port, None)
    async with asyncio.timeout(SECONDS_MAX / 2):
        assert await ask(among(postgres, *(places[n] for n in order)))


async def test_replica_that_is_promoted_is_found_though_another_server_stays_silent(
    postgres: AsyncEngine, silent_port: int
) -> None:
    """As when the primary's machine freezes: the server that takes over refuses at first."""
    assert postgres.url.port is not None
    late = Proxy(("127.0.0.1", postgres.url.port))
    await late.start()
    await late.cut()
    try:
        asked = asyncio.create_task(ask(among(postgres, silent_port, late.ports[0])))
        await asyncio.sleep(2 * RETRY_SECONDS)
        assert not asked.done()
        await late.mend()
        async with asyncio.timeout(SECONDS_MAX / 2):
            assert await asked
    finally:
        await late.stop()


async def test_server_that_is_down_keeps_nobody_from_the_primary(postgres: AsyncEngine, closed_port: int) -> None:
    assert await ask(among(postgres, closed_port, None, closed_port))


async def test_no_connection_to_another_server_is_left(postgres: AsyncEngine) -> None:
    """Where several accept: as in the moment of a failover in which there are two primaries."""
    name = "credits of this test"
    url = f"{among(postgres, None, None, None)}&application_name={name.replace(' ', '%20')}"
    await ask(url, 3)
    sought = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name")
    async with asyncio.timeout(SECONDS_MAX), postgres.connect() as connection:
        while await connection.scalar(sought, {"name": name}):
            await connection.rollback()
            await asyncio.sleep(0.02)


async def test_fault_that_is_told_is_the_one_that_says_most(postgres: AsyncEngine, closed_port: int) -> None:
    with pytest.raises(LedgerRefused, match="password"):
        await ask(among(postgres, closed_port, None, password="wrong"))
    with pytest.raises(LedgerUnavailable, match="Connect call failed"):
        await ask(among(postgres, closed_port, closed_port))


async def test_primary_is_not_taken_for_a_replica(postgres: AsyncEngine) -> None:
    with pytest.raises(LedgerUnavailable, match="None of the hosts"):
        await ask(f"{among(postgres, None, None)}&target_session_attrs=standby")


@pytest.mark.parametrize("place", ["db1.example", "/credits?host=db1.example:5432&host=db1.example:5433"])
async def test_host_whose_name_has_no_address_is_named(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    url = f"postgresql+asyncpg://credits:hunter2@{place}"
    with pytest.raises(LedgerUnavailable, match=r"db1\.example: Name or service not known") as fault:
        await ask(url if "?" in url else f"{url}/credits")
    assert "hunter2" not in str(fault.value)


async def connect(engine: AsyncEngine) -> None:
    with outages_as_unavailable():
        async with engine.connect():
            pass


async def test_host_that_is_silent_is_named(silent_port: int) -> None:
    url = f"postgresql+asyncpg://credits:hunter2@127.0.0.1:{silent_port}/credits"
    engine = create_engine(LedgerSettings(database_url=url, statement_seconds_max=1))
    with pytest.raises(LedgerUnavailable, match=r"^the database: 127\.0\.0\.1: no answer in time$"):
        await connect(engine)
    await engine.dispose()
