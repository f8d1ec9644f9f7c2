"""The database is replaced by an older copy of itself, on the same timeline: no cache tells of lost wins."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.ledger_client.questions import split
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindPlayer
from shared.settings import LedgerSettings
from shared.wire import Question
from tests.support.caches import cache_on
from tests.support.credits import WIN
from tests.support.ledgers import add_players, assert_books_hold, balance_minor
from tests.support.servers import Servers
from tests.support.servers.server import PASSWORD, USER
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.ledger.cache.outcomes import MemoryCache
from worker.ledger.service import LedgerService
from worker.ledger.transaction import Ledger

pytestmark = pytest.mark.own_servers("postgres")

STARTED = text("SELECT pg_postmaster_start_time()")
UNTIL_SECONDS = 20


class Books:
    """A database of the tests' PostgreSQL, to be saved and replaced."""

    def __init__(self, servers: Servers, engine: AsyncEngine) -> None:
        self._servers, self._engine = servers, engine
        self.name = str(engine.url.database)

    async def dump(self) -> str:
        """Return the file on the server's machine that pg_dump has written."""
        file = (await self._run("mktemp")).strip()
        await self._run("pg_dump", "--format=custom", f"--file={file}", "--dbname", await self._url())
        return file

    async def load(self, file: str, *options: str) -> None:
        options = (*options, "--single-transaction", "--exit-on-error")
        await self._run("pg_restore", *options, "--dbname", await self._url(), file)
        await self._run("rm", file)

    async def administer(self, *statements: str) -> None:
        """Do what can be done only from another database, while nobody is connected to this one."""
        await self._engine.dispose()
        connection = await asyncpg.connect(self._servers.database_url.replace("+asyncpg", ""))
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def replace_by(self, copy: str) -> None:
        """Put a copy in the place of this database. The server ends the connections to it."""
        connection = await asyncpg.connect(self._servers.database_url.replace("+asyncpg", ""))
        try:
            await connection.execute(f"DROP DATABASE {self.name} WITH (FORCE)")
            await connection.execute(f"ALTER DATABASE {copy} RENAME TO {self.name}")
        finally:
            await connection.close()

    async def _url(self) -> str:
        connection = await asyncpg.connect(self._servers.database_url.replace("+asyncpg", ""))
        try:
            port = await connection.fetchval("SHOW port")
        finally:
            await connection.close()
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/{self.name}"

    async def _run(self, *command: str) -> str:
        return await asyncio.to_thread(self._servers.postgres.run, *command)


Replace = Callable[[], Coroutine[Any, Any, None]]
Save = Callable[[Books], Coroutine[Any, Any, Replace]]
"""Saves the books, and returns what puts them back."""


async def by_dump_into_the_tables(books: Books) -> Replace:
    file = await books.dump()
    return lambda: books.load(file, "--clean")


async def by_dump_into_a_new_database(books: Books) -> Replace:
    file = await books.dump()

    async def put_back() -> None:
        await books.administer(f"DROP DATABASE {books.name}", f"CREATE DATABASE {books.name}")
        await books.load(file)

    return put_back


async def by_copy_of_the_database(books: Books) -> Replace:
    copy = f"test_{uuid4().hex}"
    await books.administer(f"CREATE DATABASE {copy} TEMPLATE {books.name}")
    return lambda: books.administer(f"DROP DATABASE {books.name}", f"ALTER DATABASE {copy} RENAME TO {books.name}")


@pytest.mark.parametrize("save", [by_dump_into_the_tables, by_dump_into_a_new_database, by_copy_of_the_database])
async def test_win_lost_with_the_database_is_paid_when_it_comes_again(
    servers: Servers, postgres: AsyncEngine, save: Save
) -> None:
    await add_players(postgres)
    put_back = await save(Books(servers, postgres))
    ledger = Ledger(postgres)
    async with cache_on(servers.cache_url, await ledger.keyed_epoch()) as cache:
        bookkeeper = LedgerService(ledger, cache)
        for expected in (OutcomeCode.POSTED, OutcomeCode.REPLAYED):
            (outcome,) = await bookkeeper.post([WIN])
            assert outcome.code is expected
        assert await cache.get([WIN.identity])
        await put_back()
        bookkeeper.epoch_known_until = 0.0  # as a moment later
        (outcome,) = await bookkeeper.post([WIN])
        assert outcome.code is OutcomeCode.POSTED
    assert await balance_minor(ledger) == WIN.amount_minor
    await assert_books_hold(postgres)


async def test_books_that_are_replaced_at_once_are_noticed_by_a_connection_that_ends(
    servers: Servers, postgres: AsyncEngine
) -> None:
    """As in a recovery from a crash, or a failover, that takes less than the epoch is believed for."""
    await add_players(postgres)
    books, copy = Books(servers, postgres), f"test_{uuid4().hex}"
    await books.administer(f"CREATE DATABASE {copy} TEMPLATE {books.name}")
    ledger = Ledger(postgres)
    bookkeeper = LedgerService(ledger, MemoryCache())
    for expected in (OutcomeCode.POSTED, OutcomeCode.REPLAYED):
        (outcome,) = await bookkeeper.post([WIN])
        assert outcome.code is expected
        bookkeeper.epoch_known_until = inf  # no time passes
    await books.replace_by(copy)
    async with asyncio.timeout(UNTIL_SECONDS):
        while not ledger.connections_lost:
            await asyncio.sleep(0.01)
        while (told := await settled(bookkeeper)) is None:
            pass
    assert told.code is OutcomeCode.POSTED
    assert await balance_minor(ledger) == WIN.amount_minor


async def settled(bookkeeper: LedgerService) -> Outcome | None:
    try:
        (outcome,) = await bookkeeper.post([WIN])
    except LedgerUnavailable:
        return None
    return outcome


@pytest.mark.parametrize("question", [WIN, FindPlayer("anna")])
@pytest.mark.parametrize("is_guessed", [True, False])
async def test_epoch_is_asked_for_after_a_question_without_answer(
    postgres: AsyncEngine, question: Question, *, is_guessed: bool
) -> None:
    """Where a pooler keeps our connections, nothing else tells that the server is another."""
    await add_players(postgres)
    url = postgres.url.render_as_string(hide_password=False)
    engine = create_engine(LedgerSettings(database_url=url, statement_seconds_max=1))
    bookkeeper = LedgerService(Ledger(engine), MemoryCache(), epoch_known_until=inf)
    bookkeeper.backoff.record(success=is_guessed)
    async with postgres.connect() as other:
        await other.execute(text("LOCK TABLE wallets IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(LedgerUnavailable):
            await bookkeeper.answer(*split([question]))
    assert bookkeeper.epoch_known_until == 0
    await engine.dispose()


async def test_server_that_has_started_anew_is_in_another_epoch(servers: Servers, postgres: AsyncEngine) -> None:
    """It may run on a snapshot of its disk, which has the same timeline."""
    ledger = Ledger(postgres)
    before = await ledger.keyed_epoch()
    await asyncio.to_thread(servers.postgres.stop)
    await asyncio.to_thread(servers.postgres.start)
    await postgres.dispose()
    after = await ledger.keyed_epoch()
    assert after.name != before.name
    assert await ledger.keyed_epoch() == after


async def test_server_that_has_recovered_from_a_crash_is_in_another_epoch(
    servers: Servers, postgres: AsyncEngine
) -> None:
    """It may have lost what was not on disk when one of its processes died, and has not started anew."""
    ledger = Ledger(postgres)
    before = await ledger.keyed_epoch()
    async with postgres.connect() as connection:
        started = await connection.scalar(STARTED)
        process = await connection.scalar(text("SELECT pg_backend_pid()"))
    await asyncio.to_thread(servers.postgres.run, "sh", "-c", f"kill -9 {process}")
    async with asyncio.timeout(UNTIL_SECONDS):
        while not await is_there(ledger):
            await asyncio.sleep(0.05)
    async with postgres.connect() as connection:
        assert await connection.scalar(STARTED) == started
    after = await ledger.keyed_epoch()
    assert after.name != before.name
    assert await ledger.keyed_epoch() == after


async def is_there(ledger: Ledger) -> bool:
    try:
        await ledger.epoch()
    except LedgerUnavailable:
        return False
    return True


@asynccontextmanager
async def engine_of(path: Path) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(LedgerSettings(database_url=f"sqlite+aiosqlite:///{path}"))
    yield engine
    await engine.dispose()


@asynccontextmanager
async def started(path: Path, cache_url: str) -> AsyncIterator[LedgerService]:
    """A process that has just started on a database file."""
    async with engine_of(path) as engine:
        ledger = Ledger(engine)
        async with cache_on(cache_url, await ledger.keyed_epoch()) as cache:
            yield LedgerService(ledger, cache)


async def test_win_lost_with_a_file_is_paid_when_it_comes_again(servers: Servers, tmp_path: Path) -> None:
    path, copy = tmp_path / "credits.db", tmp_path / "copy.db"
    async with engine_of(path) as engine:
        await migrate(engine)
        await add_players(engine)
    shutil.copyfile(path, copy)
    async with started(path, servers.cache_url) as bookkeeper:
        (outcome,) = await bookkeeper.post([WIN])
        assert outcome.code is OutcomeCode.POSTED
    path.unlink()
    shutil.copyfile(copy, path)
    async with started(path, servers.cache_url) as bookkeeper:
        assert not await bookkeeper.cache.get([WIN.identity])
        (outcome,) = await bookkeeper.post([WIN])
        assert outcome.code is OutcomeCode.POSTED


async def test_win_that_a_primary_of_before_has_posted_is_not_remembered_as_of_the_new_one(
    servers: Servers, postgres: AsyncEngine
) -> None:
    """It is still reached by a connection from before, while others lead to the new one."""
    await add_players(postgres)
    books = Books(servers, postgres)
    new = f"test_{uuid4().hex}"
    await books.administer(f"CREATE DATABASE {new} TEMPLATE {books.name}")
    leads_to = [books.name, new]

    engine = create_engine(LedgerSettings(database_url=postgres.url.render_as_string(hide_password=False)))

    @event.listens_for(engine.sync_engine, "do_connect")
    def lead(_dialect: object, _record: object, _arguments: object, options: dict[str, Any]) -> None:
        options["database"] = leads_to.pop(0) if leads_to else new

    try:
        async with engine.connect(), engine.connect():
            pass  # from now on, they are used in turns, that to the new one first
        ledger = Ledger(engine)
        async with cache_on(servers.cache_url, await ledger.keyed_epoch()) as cache:
            bookkeeper = LedgerService(ledger, cache, epoch_known_until=inf)
            (outcome,) = await bookkeeper.post([WIN])
            assert outcome.code is OutcomeCode.POSTED
            assert await balance_minor(Ledger(postgres)) == WIN.amount_minor
            await engine.dispose()  # it is gone, with what nobody else had
            (outcome,) = await bookkeeper.post([WIN])
            assert outcome.code is OutcomeCode.POSTED
        assert await balance_minor(ledger) == WIN.amount_minor
        await assert_books_hold(engine)
    finally:
        await engine.dispose()
        await books.administer(f"DROP DATABASE {new}")
