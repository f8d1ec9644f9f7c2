"""A database with replicas: nobody is told what they don't hold, and a promoted one begins a new epoch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerUnavailable
from shared.money import Currencies
from shared.outcome import Balance, OutcomeCode
from shared.queries import FindPlayer
from shared.settings import LedgerSettings
from tests.support.caches import cache_on
from tests.support.cluster import Cluster
from tests.support.credits import WIN, win
from tests.support.ledgers import add_players, assert_books_hold, balance_minor
from tests.support.pgbouncer import running_pgbouncer
from tests.support.servers import Servers
from tests.support.servers.server import USER
from worker.database.engine import create_engine
from worker.database.migrate import head_revision, migrate
from worker.database.schema import transfers
from worker.ledger.cache.outcomes import MemoryCache
from worker.ledger.service import LedgerService
from worker.ledger.transaction import Ledger
from worker.players import add_player, open_session
from worker.queries.audit_entries import AuditQuery, list_audit
from worker.queries.queries import show_balances, show_player, show_transfer
from worker.verify import verify

pytestmark = pytest.mark.own_servers("postgres")

Act = Callable[[AsyncEngine], Coroutine[Any, Any, object]]


@pytest.fixture
async def hurried(postgres: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    """The database with players, waited for no longer than a second."""
    await add_players(postgres)
    url = postgres.url.render_as_string(hide_password=False)
    engine = create_engine(LedgerSettings(database_url=url, statement_seconds_max=1))
    yield engine
    await engine.dispose()


@asynccontextmanager
async def running_as_replica(servers: Servers, postgres: AsyncEngine) -> AsyncIterator[None]:
    """Have the server be a replica for a while, which is then promoted."""
    async with postgres.connect() as connection:
        directory = await connection.scalar(text("SHOW data_directory"))
    await postgres.dispose()
    await asyncio.to_thread(servers.postgres.run, "touch", f"{directory}/standby.signal")
    await asyncio.to_thread(servers.postgres.stop)
    await asyncio.to_thread(servers.postgres.start)
    try:
        yield
    finally:
        async with postgres.connect() as connection:
            await connection.execute(text("SELECT pg_promote()"))


async def count(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(select(func.count()).select_from(transfers)) or 0)


async def test_win_that_no_replica_holds_is_told_as_paid_to_nobody(cluster: Cluster, hurried: AsyncEngine) -> None:
    bookkeepers = [LedgerService(Ledger(hurried), MemoryCache()) for _ in range(2)]
    await cluster.wait_for("nobody")
    for bookkeeper in (*bookkeepers, *bookkeepers):
        with pytest.raises(LedgerUnavailable):
            await bookkeeper.post([WIN])
    assert await count(hurried) == 1  # visible to all, and perhaps to be lost
    await cluster.wait_for("")
    for bookkeeper in bookkeepers:
        bookkeeper.epoch_known_until = 0
        (outcome,) = await bookkeeper.post([WIN])
        assert outcome.code is OutcomeCode.REPLAYED
    await assert_books_hold(hurried)


async def test_worker_that_is_only_asked_for_balances_learns_that_replicas_are_waited_for(
    cluster: Cluster, hurried: AsyncEngine
) -> None:
    ledger = Ledger(hurried)
    await ledger.keyed_epoch()  # as each worker does when it starts
    bookkeeper = LedgerService(ledger, MemoryCache())
    _, [holder] = await bookkeeper.answer([], [FindPlayer("anna")])
    assert holder == Balance("anna", "EUR", 0, 0)
    await cluster.wait_for("nobody")
    with pytest.raises(LedgerUnavailable):
        await LedgerService(Ledger(hurried), MemoryCache()).post([WIN])
    assert await count(hurried) == 1  # visible to all, and perhaps to be lost
    bookkeeper.epoch_known_until = 0  # as a moment later
    with pytest.raises(LedgerUnavailable):
        await bookkeeper.answer([], [FindPlayer("anna")])


async def test_balance_is_not_told_by_a_replica_that_a_name_leads_to_by_now(
    servers: Servers, postgres: AsyncEngine
) -> None:
    await add_players(postgres)
    bookkeeper = LedgerService(Ledger(postgres), MemoryCache())
    assert await bookkeeper.answer([], [FindPlayer("anna")]) == ([], [Balance("anna", "EUR", 0, 0)])
    async with running_as_replica(servers, postgres):
        bookkeeper.epoch_known_until = 0  # as a moment later
        with pytest.raises(LedgerUnavailable, match="replica"):
            await bookkeeper.answer([], [FindPlayer("anna")])


QUESTIONS: dict[str, Act] = {
    "balance for a provider": lambda engine: Ledger(engine).find([FindPlayer("anna")]),
    "balances": lambda engine: show_balances(engine, Currencies(), "anna"),
    "player": lambda engine: show_player(engine, Currencies(), "anna"),
    "transfer": lambda engine: show_transfer(engine, Currencies(), *WIN.identity),
    "audit log": lambda engine: list_audit(engine, AuditQuery()),
}


@pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)
async def test_question_is_not_answered_with_what_no_replica_holds(
    cluster: Cluster, hurried: AsyncEngine, ask: Act
) -> None:
    answered = await ask(hurried)
    assert answered
    await cluster.wait_for("nobody")
    with pytest.raises(LedgerUnavailable):
        await ask(hurried)
    await cluster.wait_for("")
    assert await ask(hurried) == answered


WRITES: dict[str, Act] = {
    "new win": lambda engine: Ledger(engine).post_new([win("another")]),
    "win under locks": lambda engine: Ledger(engine).post([win("another")]),
    "repeat": lambda engine: Ledger(engine).post([WIN]),
    "conflict": lambda engine: Ledger(engine).post([win(WIN.provider_tx_id, amount_minor=1)]),
    "refusal": lambda engine: Ledger(engine).post([win("another", player_id="nobody")]),
    "balance": lambda engine: Ledger(engine).find([FindPlayer("anna")]),
    "player": lambda engine: add_player(engine, "carl", "EUR"),
    "session": lambda engine: open_session(engine, "klas", "session-9", "anna"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
async def test_wait_that_somebody_cancels_is_no_confirmation(
    cluster: Cluster, postgres: AsyncEngine, write: Act
) -> None:
    """PostgreSQL says of it in a warning that it has committed here, and replies as if all were well."""
    await add_players(postgres)
    await LedgerService(Ledger(postgres), MemoryCache()).post([WIN])
    await cluster.wait_for("nobody")
    written = asyncio.create_task(write(postgres))
    await cluster.cancel_one_wait()
    with pytest.raises(LedgerUnavailable, match="canceled"):
        await written


async def test_migration_is_not_told_as_done_when_its_wait_was_canceled(
    cluster: Cluster, postgres: AsyncEngine
) -> None:
    async with postgres.begin() as connection:
        for statement in ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public"):
            await connection.execute(text(statement))
    await cluster.wait_for("nobody")
    written = asyncio.create_task(migrate(postgres))
    await cluster.cancel_one_wait()
    with pytest.raises(LedgerUnavailable, match="canceled"):
        await written
    assert await migrate(postgres) == (head_revision(), head_revision())


async def test_audit_says_of_its_point_that_the_wait_for_replicas_was_canceled(
    cluster: Cluster, postgres: AsyncEngine
) -> None:
    await cluster.wait_for("nobody")
    written = asyncio.create_task(verify(postgres, Currencies()))
    await cluster.cancel_one_wait()
    audit = await written
    assert audit.holds
    assert not audit.coverage.is_verified_point
    assert "canceled" in str(audit.coverage.not_kept)


async def test_audit_ends_where_no_replica_confirms_its_point(
    cluster: Cluster, postgres: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.verify.checkpoints.COMMIT_SECONDS_MAX", 1.0)
    await cluster.wait_for("nobody")
    patient = create_engine(
        LedgerSettings(database_url=postgres.url.render_as_string(hide_password=False)),
        no_statement_timeout=True,
    )
    try:
        audit = await verify(patient, Currencies())
    finally:
        await patient.dispose()
    assert audit.holds
    assert str(audit.coverage.not_kept).startswith("no replica has confirmed it within")


@pytest.mark.parametrize("pooler", ["none", "session", "transaction"])
async def test_canceled_wait_is_heard_of_by_a_role_that_hears_no_warnings(
    servers: Servers, cluster: Cluster, postgres: AsyncEngine, tmp_path: Path, pooler: str
) -> None:
    await add_players(postgres)
    database = postgres.url.database
    await cluster.value(f"ALTER ROLE {USER} IN DATABASE {database} SET client_min_messages = 'error'")
    with ExitStack() as stack:
        port = postgres.url.port
        if pooler != "none":
            port = stack.enter_context(running_pgbouncer(servers, tmp_path, pooler)).port
        url = postgres.url.set(port=port).render_as_string(hide_password=False)
        engine = create_engine(LedgerSettings.model_validate({"database_url": url, "pooler": pooler}))
        await cluster.wait_for("nobody")
        for write in WRITES.values():
            written = asyncio.create_task(write(engine))
            await cluster.cancel_one_wait()
            with pytest.raises(LedgerUnavailable, match="canceled"):
                await written
        await engine.dispose()


async def test_commit_waits_for_replicas_whatever_another_client_has_left_on_the_connection(
    servers: Servers, cluster: Cluster, hurried: AsyncEngine, tmp_path: Path
) -> None:
    with running_pgbouncer(servers, tmp_path, "transaction", servers_max=1) as bouncer:
        url = hurried.url.set(port=bouncer.port).render_as_string(hide_password=False)
        other = await asyncpg.connect(url.replace("+asyncpg", ""), statement_cache_size=0)
        await other.execute("SET synchronous_commit = off")
        await other.close()
        settings = {"database_url": url, "pooler": "transaction", "statement_seconds_max": 1}
        engine = create_engine(LedgerSettings.model_validate(settings))
        await cluster.wait_for("nobody")
        for write in (Ledger(engine).post_new, Ledger(engine).post):
            with pytest.raises(LedgerUnavailable):
                await write([WIN])
        await engine.dispose()


async def test_epoch_is_another_after_a_promotion(servers: Servers, postgres: AsyncEngine) -> None:
    """The server is stopped, started as a replica, and promoted: it may lack what its primary has told."""
    await add_players(postgres)
    ledger = Ledger(postgres)
    before = await ledger.keyed_epoch()
    async with cache_on(servers.cache_url, before) as cache:
        (posted,) = await LedgerService(ledger, cache).post([WIN])
        assert posted.code is OutcomeCode.POSTED
        async with running_as_replica(servers, postgres):
            with pytest.raises(LedgerUnavailable, match="replica"):
                await ledger.keyed_epoch()
        after = await ledger.keyed_epoch()
        assert after.name != before.name
        assert cache.get_local([WIN.identity])
        cache.set_epoch(after)
        assert not cache.get_local([WIN.identity])
        assert not await cache.get([WIN.identity])
        assert await ledger.keyed_epoch() == after
    assert await balance_minor(ledger) == WIN.amount_minor
