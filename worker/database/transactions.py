"""Transactions as a whole: what they read is one state of the books, and what they tell the replicas hold."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from worker.database.engine import read_only
from worker.database.replication import commit, confirm


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Write in one transaction, which commits with the block. Raises LedgerUnavailable as `commit` does."""
    async with engine.connect() as connection:
        yield connection
        await commit(connection)


@asynccontextmanager
async def snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Read one state of the books, whatever is posted meanwhile, and without holding that up."""
    async with read_only(engine).connect() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection


@asynccontextmanager
async def confirmed_snapshot(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Read one state of the books that somebody is told of: the block ends when the replicas hold it."""
    async with snapshot(engine) as connection:
        yield connection
        await confirm(connection)
