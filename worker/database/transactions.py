"""Transactions as context managers: to write, to read one snapshot, and to read what the replicas have, too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.database.engine import read_only
from worker.database.replication import commit, confirm


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection in a transaction that commits at the end. Raises LedgerUnavailable as `commit` does."""
    async with engine.connect() as connection:
        yield connection
        await commit(connection)


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection that reads one snapshot of the ledger, and blocks no writer."""
    async with read_only(engine).connect() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection


@asynccontextmanager
async def confirmed_snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Yield a connection that reads one snapshot, for a reply: at the end it waits until the replicas have it."""
    async with snapshot(engine) as connection:
        yield connection
        await confirm(connection)
