"""Databases with tables, copied from one that is made once on each server: migrating takes longer than most tests."""

from typing import Final

import asyncpg

from shared.settings import LedgerSettings
from tests.support.servers import Servers, fresh_database
from worker.database.engine import create_engine
from worker.database.migrate import migrate

ORIGINAL: Final = "migrated"
_LOCK: Final = 19_000

_made: Final[set[str]] = set()
"""The servers that have the original, as far as this process knows."""


async def migrated_database(servers: Servers) -> str:
    """Create a database with tables and return its URL, in SQLAlchemy's form, for asyncpg."""
    if servers.database_url not in _made:
        await _make_original(servers)
        _made.add(servers.database_url)
    return await fresh_database(servers, like=ORIGINAL)


async def _make_original(servers: Servers) -> None:
    """Make the original, unless another process of the test run has made it on the same server."""
    connection = await asyncpg.connect(servers.database_url.replace("+asyncpg", ""))
    try:
        await connection.execute(f"SELECT pg_advisory_lock({_LOCK})")
        if not await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", ORIGINAL):
            url = await fresh_database(servers)
            await migrate_database(url)
            await connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} RENAME TO {ORIGINAL}")
    finally:
        await connection.close()


async def migrate_database(database_url: str) -> None:
    """Make the tables of the present version in an empty database."""
    engine = create_engine(LedgerSettings(database_url=database_url))
    try:
        await migrate(engine)
    finally:
        await engine.dispose()
