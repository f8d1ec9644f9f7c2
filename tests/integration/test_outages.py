"""A database that can't be written now: no win is refused for it, lost or put aside; all wait, and are paid.

The worker, its ledger and the databases are real, and so are their faults; the queues are in memory.
"""

import sqlite3
from asyncio import to_thread
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerUnavailable
from shared.outcome import Outcome, OutcomeCode
from shared.settings import LedgerSettings
from tests.support.crashes import UnluckyCache, UnluckyWorker
from tests.support.credits import WIN, win
from tests.support.ledgers import add_players, assert_books_hold, balance_minor, post, results
from tests.support.queues import Queues, batch_of
from worker.database.engine import create_engine, read_only
from worker.database.faults import outages_as_unavailable
from worker.ledger.transaction import Ledger

WINS = [win(f"win-{n}", details={"much": "x" * 200}) for n in range(500)]
"""More than fits into the pages that a SQLite file has left over."""


class Outage(NamedTuple):
    """Statements that make a database unfit for posting, and those that end it."""

    begin: Sequence[str]
    end: Sequence[str]


def setting(name: str, value: str, *to_be_allowed: str) -> Outage:
    """Return the outage that a setting makes of a PostgreSQL database: `this` stands for its name."""
    reset = f"ALTER DATABASE this RESET {name}"
    return Outage([f"ALTER DATABASE this SET {name} = {value}"], [*to_be_allowed, reset])


ON_POSTGRESQL = {
    "a standby": setting("default_transaction_read_only", "on", "SET TRANSACTION READ WRITE"),
    "without its grants": setting("role", "pg_monitor", "SET ROLE NONE"),
    "without a table": Outage(["ALTER TABLE wallets RENAME TO old"], ["ALTER TABLE old RENAME TO wallets"]),
    "without a column": Outage(
        ["ALTER TABLE wallets RENAME version TO old"], ["ALTER TABLE wallets RENAME old TO version"]
    ),
}
ON_SQLITE = {
    "on a full disk": Outage(["PRAGMA max_page_count = 1"], ["PRAGMA max_page_count = 1000000"]),
    "read-only": Outage(["PRAGMA query_only = ON"], ["PRAGMA query_only = OFF"]),
}
OUTAGES = [
    pytest.param(kind, outage, id=f"{kind}-{name}")
    for kind, outages in {"postgresql": ON_POSTGRESQL, "sqlite": ON_SQLITE}.items()
    for name, outage in outages.items()
]


async def execute(engine: AsyncEngine, statements: Sequence[str]) -> None:
    on_postgresql = engine.dialect.name == "postgresql"
    as_allowed = engine if on_postgresql else read_only(engine)  # a file may not be locked for writing
    async with as_allowed.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement.replace(" this ", f" {engine.url.database} ")))
    if on_postgresql:
        await engine.dispose()  # a database's settings are those of new connections; a pragma is of this one


async def told(queues: Queues, worker: UnluckyWorker) -> list[OutcomeCode]:
    """Let a worker take what there is, and return what it told."""
    queues.replies.clear()
    worker.take()
    assert await worker.work(None)
    return results([a for _, reply in queues.replies for a in reply.answers if isinstance(a, Outcome)])


@pytest.mark.parametrize(("database_url", "outage"), OUTAGES, indirect=["database_url"])
async def test_wins_wait_for_a_database_that_is(engine: AsyncEngine, outage: Outage) -> None:
    await add_players(engine)
    queues = Queues()
    worker = UnluckyWorker(engine, UnluckyCache(), queues)
    queues.live.append(batch_of(0, WINS))
    await execute(engine, outage.begin)
    assert await told(queues, worker) == [OutcomeCode.UNAVAILABLE] * len(WINS)
    await told(queues, worker)
    await execute(engine, outage.end)
    await told(queues, worker)
    assert not worker.has_work
    assert not queues.dead
    assert await balance_minor(Ledger(engine)) == len(WINS) * WIN.amount_minor
    await assert_books_hold(engine)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_wins_wait_for_a_file_that_is_damaged(engine: AsyncEngine) -> None:
    await add_players(engine)
    await engine.dispose()
    path = Path(str(engine.url.database))
    whole = await to_thread(path.read_bytes)
    await to_thread(path.write_bytes, b"damaged" * (len(whole) // 7))
    with pytest.raises(LedgerUnavailable, match="not a database"):
        await post(Ledger(engine), WIN)
    await to_thread(path.write_bytes, whole[:4096] + b"damaged" * (len(whole) // 7))
    with pytest.raises(LedgerUnavailable, match="malformed"):
        await post(Ledger(engine), WIN)
    await engine.dispose()
    await to_thread(path.write_bytes, whole)
    assert results(await post(Ledger(engine), WIN)) == [OutcomeCode.POSTED]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_wins_wait_for_a_file_that_another_process_keeps_locked(engine: AsyncEngine) -> None:
    await add_players(engine)
    await execute(engine, ["PRAGMA busy_timeout = 0"])
    other = sqlite3.connect(str(engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerUnavailable, match="locked"):
        await post(Ledger(engine), WIN)
    other.close()
    assert results(await post(Ledger(engine), WIN)) == [OutcomeCode.POSTED]


async def test_wins_wait_while_a_failover_has_left_no_primary(postgres: AsyncEngine) -> None:
    """The URL asks for a server that is none of those there: as between a failover's two halves."""
    url = postgres.url.update_query_dict({"target_session_attrs": "standby"})
    async with engine_of(url.render_as_string(hide_password=False)) as nowhere:
        with pytest.raises(LedgerUnavailable, match="None of the hosts"):
            await post(Ledger(nowhere), WIN)


async def test_wins_wait_for_a_connection_of_the_pool(postgres: AsyncEngine) -> None:
    await add_players(postgres)
    url = postgres.url.render_as_string(hide_password=False)
    async with engine_of(url, pool_connections_max=1, statement_seconds_max=1) as small:
        async with small.connect():
            with pytest.raises(LedgerUnavailable, match="QueuePool"):
                await post(Ledger(small), WIN)
        assert results(await post(Ledger(small), WIN)) == [OutcomeCode.POSTED]


async def test_wins_wait_for_a_wallet_that_somebody_keeps_locked(postgres: AsyncEngine) -> None:
    await add_players(postgres)
    await execute(postgres, ["ALTER DATABASE this SET statement_timeout = '100ms'"])
    async with postgres.begin() as somebody:
        await somebody.execute(text("SELECT * FROM wallets FOR UPDATE"))
        with pytest.raises(LedgerUnavailable, match="statement timeout"):
            await post(Ledger(postgres), WIN)
    assert results(await post(Ledger(postgres), WIN)) == [OutcomeCode.POSTED]


async def test_win_is_paid_though_a_table_was_altered_since_the_last_one(postgres: AsyncEngine) -> None:
    """PostgreSQL refuses a statement once that was prepared before its columns became of another type."""
    await add_players(postgres)
    ledger = Ledger(postgres)
    await post(ledger, WIN)
    async with engine_of(postgres.url.render_as_string(hide_password=False)) as migrating:
        await execute(migrating, ["ALTER TABLE transfers ALTER COLUMN game_id TYPE varchar(200)"])
    assert results(await post(ledger, win("win-2"))) == [OutcomeCode.POSTED]


@pytest.mark.parametrize("statement", ["SELEC 1", "SELECT no_such_function()"])
async def test_defect_is_no_outage(engine: AsyncEngine, statement: str) -> None:
    """What waits for a database to mend our mistake waits for ever, and nobody learns of it."""
    with pytest.raises(DBAPIError), outages_as_unavailable():
        async with engine.connect() as connection:
            await connection.execute(text(statement))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_missing_table_of_a_file_is_a_defect(engine: AsyncEngine) -> None:
    await execute(engine, ["DROP TABLE conflicts", "ALTER TABLE wallets RENAME TO old"])
    with pytest.raises(DBAPIError, match="no such table"):
        await Ledger(engine).post([WIN])


@asynccontextmanager
async def engine_of(database_url: str, **settings: int) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(LedgerSettings.model_validate({"database_url": database_url, **settings}))
    try:
        yield engine
    finally:
        await engine.dispose()
