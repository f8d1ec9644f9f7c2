"""A ledger of its own for each test: on SQLite and on PostgreSQL, or on PostgreSQL alone."""

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import LedgerSettings
from tests.support.caches import cache_on
from tests.support.cluster import Cluster
from tests.support.commands import Ended, Run, run
from tests.support.databases import migrate_database, migrated_database
from tests.support.servers import Servers, drop_database, fresh_database
from worker.database.engine import create_engine
from worker.ledger.cache.outcomes import RedisCache
from worker.players import add_player


@asynccontextmanager
async def engine_of(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(LedgerSettings(database_url=database_url))
    try:
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture(autouse=True)
def short_logs() -> Iterator[None]:
    """Log as in production, without the local variables of a traceback: to print them takes seconds."""
    steps = structlog.processors
    structlog.configure(processors=[steps.add_log_level, steps.format_exc_info, steps.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


class EmptyFile:
    """An SQLite file with tables and nothing in them, made once and then copied."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "ledger.db"

    async def copy_to(self, path: Path) -> None:
        if not self._path.exists():
            await migrate_database(f"sqlite+aiosqlite:///{self._path}")
        shutil.copyfile(self._path, path)


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> EmptyFile:
    return EmptyFile(tmp_path_factory.mktemp("empty"))


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path, empty_file: EmptyFile) -> AsyncIterator[str]:
    """An empty database, once of each kind; where a test takes the `engine` too, one with tables."""
    has_tables = "engine" in request.fixturenames
    if request.param == "sqlite":
        if has_tables:
            await empty_file.copy_to(tmp_path / "ledger.db")
        yield f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
        return
    servers: Servers = request.getfixturevalue("servers")
    url = await (migrated_database(servers) if has_tables else fresh_database(servers))
    yield url
    await drop_database(servers, url)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A ledger's database, once of each kind."""
    async with engine_of(database_url) as made:
        yield made


@pytest.fixture
async def postgres(servers: Servers) -> AsyncIterator[AsyncEngine]:
    """A ledger's database on PostgreSQL, where several workers post at once."""
    url = await migrated_database(servers)
    async with engine_of(url) as made:
        yield made
    await drop_database(servers, url)


@pytest.fixture
async def worker(engine: AsyncEngine) -> Run:
    """The command line on migrated tables, with player anna."""
    await add_player(engine, "anna", "EUR")
    url = engine.url.render_as_string(hide_password=False)

    async def run_here(*arguments: str, **environment: str) -> Ended:
        return await run(url, *arguments, **environment)

    return run_here


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


@pytest.fixture
async def cluster(servers: Servers, postgres: AsyncEngine) -> AsyncIterator[Cluster]:
    del postgres  # which is dropped after the wait has ended
    made = Cluster(servers)
    try:
        yield made
    finally:
        await made.wait_for("")
