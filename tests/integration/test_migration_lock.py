"""`migrate` says at once for whom it waits, and gives up in the end: no deployment hangs without a word."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from shared.errors import LedgerUnavailable
from shared.settings import LedgerSettings
from tests.support.commands import INHERITED, run
from tests.support.paths import ROOT
from tests.support.servers import Servers, drop_database, fresh_database
from worker.cli.exit_codes import ExitCode
from worker.database.engine import create_engine
from worker.database.migrate import migrate, pending_migration
from worker.database.migration_lock import MIGRATION_LOCK

WITHIN_SECONDS = 60


@pytest.fixture
async def url(servers: Servers) -> AsyncIterator[str]:
    made = await fresh_database(servers)
    yield made
    await drop_database(servers, made)


@asynccontextmanager
async def holding(url: str, *statements: str) -> AsyncIterator[int]:
    """Hold in a transaction what the statements take; yield the process's number."""
    connection = await asyncpg.connect(
        url.replace("+asyncpg", ""), server_settings={"application_name": "forgotten psql"}
    )
    try:
        await connection.execute("BEGIN")
        for statement in statements:
            await connection.execute(statement)
        yield await connection.fetchval("SELECT pg_backend_pid()")
    finally:
        await connection.close()


LOCK = f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"


async def test_migrate_names_who_holds_the_lock_and_gives_up(url: str) -> None:
    async with holding(url, LOCK) as pid:
        ended = await run(url, "migrate", "--wait", "1")
    line = ended.error(ExitCode.DATABASE)
    assert f"process {pid} of the database" in line
    assert "forgotten psql" in line
    assert "gave up after 1 s" in line
    first, _last = ended.err.splitlines()
    assert first.startswith(f"somebody else migrates: process {pid} of the database")


async def test_migrate_that_may_not_wait_gives_up_at_once(url: str) -> None:
    async with holding(url, LOCK):
        ended = await run(url, "migrate", "--wait", "0")
    assert ended.err.count("\n") == 1
    assert "gave up after 0 s" in ended.error(ExitCode.DATABASE)
    assert (await run(url, "migrate", "--wait", "0")).code == ExitCode.OK


async def test_migrate_goes_on_when_the_lock_is_let_go(url: str) -> None:
    process = None
    async with holding(url, LOCK) as pid:
        environment = {**INHERITED, "CREDITS_CONFIG": "", "CREDITS_LEDGER__DATABASE_URL": url}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "worker", "migrate"),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        async with asyncio.timeout(WITHIN_SECONDS):
            said = await process.stderr.readline()
        assert f"process {pid} of the database" in said.decode()
        assert process.returncode is None
    async with asyncio.timeout(WITHIN_SECONDS):
        assert await process.wait() == ExitCode.OK


async def test_table_that_somebody_has_locked_is_not_waited_for_without_end(url: str) -> None:
    """A statement that waits for a table makes everybody else wait behind it: wins as well."""
    engine = create_engine(LedgerSettings(database_url=url), no_statement_timeout=True)
    try:
        async with holding(url, "CREATE TABLE alembic_version (version_num varchar(32) NOT NULL)"):
            with pytest.raises(LedgerUnavailable, match="a lock on our tables; gave up after 1 s"):
                await migrate(engine, wait_seconds=1)
        assert await pending_migration(engine)
        await migrate(engine, wait_seconds=1)
        assert not await pending_migration(engine)
        async with holding(url, "LOCK TABLE alembic_version"):  # which is read before any is changed
            with pytest.raises(LedgerUnavailable, match="a lock on our tables; gave up after 1 s"):
                await migrate(engine, wait_seconds=1)
    finally:
        await engine.dispose()
