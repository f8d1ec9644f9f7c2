"""A ledger of its own for each test: on SQLite and on PostgreSQL, or on PostgreSQL alone."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import LedgerSettings
from tests.servers import Servers, fresh_database
from worker.database import create_engine, migrate


@asynccontextmanager
async def migrated(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(LedgerSettings(database_url=database_url))
    try:
        await migrate(engine)
        yield engine
    finally:
        await engine.dispose()


@pytest.fixture(autouse=True)
def short_logs() -> Iterator[None]:
    """Log without structlog's own tracebacks: to print every local variable takes seconds."""
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, renderer])
    yield
    structlog.reset_defaults()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    servers: Servers = request.getfixturevalue("servers")
    return await fresh_database(servers)


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """A ledger's database, once of each kind."""
    async with migrated(database_url) as made:
        yield made


@pytest.fixture
async def postgres(servers: Servers) -> AsyncIterator[AsyncEngine]:
    """A ledger's database on PostgreSQL, where several workers post at once."""
    async with migrated(await fresh_database(servers)) as made:
        yield made
