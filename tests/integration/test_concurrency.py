"""Several workers on one ledger at once, on PostgreSQL: no win is lost or doubled, and nobody deadlocks."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.outcome import OutcomeCode
from shared.settings import LedgerSettings
from tests.support.credits import WIN, win
from tests.support.ledgers import add_players, assert_books_hold, balance_minor, post, receipt, results
from worker.database.engine import create_engine
from worker.ledger.transaction import Ledger
from worker.players import add_player

WORKERS = 8
BATCH = 5_000
"""The largest that a worker may be set to."""


@pytest.fixture
async def ledgers(postgres: AsyncEngine) -> AsyncIterator[list[Ledger]]:
    """One ledger on PostgreSQL as several workers have it, each with connections of its own."""
    await add_players(postgres)
    async with workers_on(postgres) as made:
        yield made
    await assert_books_hold(postgres)
    assert await deadlocks(postgres) == 0


@asynccontextmanager
async def workers_on(engine: AsyncEngine) -> AsyncIterator[list[Ledger]]:
    url = engine.url.render_as_string(hide_password=False)
    async with AsyncExitStack() as stack:
        settings = LedgerSettings(database_url=url, statement_seconds_max=60)
        engines = [create_engine(settings) for _ in range(WORKERS)]
        for made in engines:
            stack.push_async_callback(made.dispose)
        yield [Ledger(made) for made in engines]


async def deadlocks(engine: AsyncEngine) -> int:
    """Return how often PostgreSQL had to break a deadlock; workers report it when they are gone."""
    statement = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    await engine.dispose()  # its own idle connections too
    async with engine.connect() as connection, asyncio.timeout(10):
        while (await connection.execute(_OTHERS)).scalar_one():
            await connection.rollback()  # within a transaction PostgreSQL shows the same activity again
            await asyncio.sleep(0.01)
        await connection.rollback()
        return int((await connection.execute(statement)).scalar_one())


_OTHERS = text(
    "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend'"
)


async def test_hundred_copies_at_once_over_several_workers_are_paid_once(ledgers: list[Ledger]) -> None:
    copies = [post(ledgers[n % WORKERS], WIN) for n in range(100)]
    outcomes = [outcome for (outcome,) in await asyncio.gather(*copies)]
    assert sorted(results(outcomes)) == [OutcomeCode.POSTED, *[OutcomeCode.REPLAYED] * 99]
    assert len({receipt(outcome).transfer_id for outcome in outcomes}) == 1
    assert await balance_minor(ledgers[0]) == 1050


async def test_batches_that_lock_the_same_wallets_in_opposite_order_never_deadlock(
    postgres: AsyncEngine, ledgers: list[Ledger]
) -> None:
    players = [f"player-{n}" for n in range(8)]
    for player_id in players:
        await add_player(postgres, player_id, "EUR")
    batches = [
        [win(f"{n}-{player_id}", player_id=player_id) for player_id in players[:: 1 if n % 2 else -1]]
        for n in range(120)
    ]
    posts = [post(ledgers[n % WORKERS], *batch) for n, batch in enumerate(batches)]
    for outcomes in await asyncio.gather(*posts):
        assert results(outcomes) == [OutcomeCode.POSTED] * len(players)
    assert {await balance_minor(ledgers[0], player_id) for player_id in players} == {120 * 1050}


async def test_batches_that_hold_the_same_ids_in_opposite_order_never_deadlock(
    postgres: AsyncEngine, ledgers: list[Ledger]
) -> None:
    """The batches lock different wallets, and so meet only where ids are unique; here both at one instant."""
    annas = [win(f"win-{n}") for n in range(BATCH)]
    bens = [win(credit.provider_tx_id, player_id="ben") for credit in reversed(annas)]
    async with postgres.begin() as barrier:
        await barrier.execute(text("LOCK TABLE transfers IN SHARE MODE"))
        posts = [
            asyncio.create_task(post(ledger, *batch)) for ledger, batch in zip(ledgers, (annas, bens), strict=False)
        ]
        async with asyncio.timeout(10):
            while (await barrier.execute(_WAITING)).scalar_one() < len(posts):
                await asyncio.sleep(0.01)
    outcomes = sorted(results(batch)[0] for batch in await asyncio.gather(*posts))
    assert outcomes == [OutcomeCode.CONFLICT, OutcomeCode.POSTED]
    assert await balance_minor(ledgers[0]) + await balance_minor(ledgers[0], "ben") == BATCH * 1050


_WAITING = text(
    "SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND relation = 'transfers'::regclass"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


async def test_same_id_for_two_players_at_once_pays_one_of_them(ledgers: list[Ledger]) -> None:
    for n in range(20):
        posts = [
            post(ledgers[worker], win(f"win-{n}", player_id=("anna", "ben")[worker % 2])) for worker in range(WORKERS)
        ]
        outcomes = [outcome for (outcome,) in await asyncio.gather(*posts)]
        half = WORKERS // 2
        expected = [*[OutcomeCode.CONFLICT] * half, OutcomeCode.POSTED, *[OutcomeCode.REPLAYED] * (half - 1)]
        assert sorted(results(outcomes)) == expected
        assert {o.mismatched_fields for o in outcomes if o.code is OutcomeCode.CONFLICT} == {("player_id",)}
    assert await balance_minor(ledgers[0]) + await balance_minor(ledgers[0], "ben") == 20 * 1050


async def test_one_hot_player_of_all_workers_loses_no_win(ledgers: list[Ledger]) -> None:
    chance = random.Random(2)
    wins = [win(f"win-{n}", amount_minor=chance.randrange(1, 10_000)) for n in range(400)]
    sent = wins + chance.sample(wins, 80)
    chance.shuffle(sent)
    posts = [post(ledgers[n % WORKERS], *sent[n * 6 : n * 6 + 6]) for n in range(80)]
    outcomes = [outcome for batch in await asyncio.gather(*posts) for outcome in batch]
    assert sorted(results(outcomes)) == [OutcomeCode.POSTED] * 400 + [OutcomeCode.REPLAYED] * 80
    assert await balance_minor(ledgers[0]) == sum(credit.amount_minor for credit in wins)
    posted = [receipt(o).balance_minor for o in outcomes if o.code is OutcomeCode.POSTED]
    assert len(set(posted)) == 400, "two wins were told the same balance: one update was lost"
    assert await versions(ledgers[0]) == list(range(1, 401))


async def versions(ledger: Ledger) -> list[int]:
    """Return the numbers of the entries on anna's REAL wallet, in the order of the balances they left."""
    numbered = text("SELECT wallet_version FROM entries WHERE account = 'REAL' ORDER BY balance_minor")
    async with ledger._engine.connect() as connection:  # noqa: SLF001
        return list((await connection.execute(numbered)).scalars())


async def test_wins_of_many_players_in_random_batches_never_deadlock(
    postgres: AsyncEngine, ledgers: list[Ledger]
) -> None:
    """Batches share some players and some ids, and hold some that can't be paid."""
    chance = random.Random(3)
    players = [f"player-{n}" for n in range(6)]
    for player_id in players:
        await add_player(postgres, player_id, "EUR")
    offered = [win(f"win-{n}", player_id=chance.choice([*players, "nobody"])) for n in range(300)]
    posts = [post(ledgers[n % WORKERS], *chance.choices(offered, k=12)) for n in range(120)]
    outcomes = [outcome for batch in await asyncio.gather(*posts) for outcome in batch]
    assert set(results(outcomes)) == {OutcomeCode.POSTED, OutcomeCode.REPLAYED, OutcomeCode.UNKNOWN_PLAYER}
    balances = [await balance_minor(ledgers[0], player_id) for player_id in players]
    assert sum(balances) == results(outcomes).count(OutcomeCode.POSTED) * 1050


async def test_worker_that_stalls_holds_up_only_the_players_of_its_batch(
    ledgers: list[Ledger], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has locked anna's wallets and does not come to its commit."""
    stalls, goes_on = asyncio.Event(), asyncio.Event()
    statements = ledgers[0]._statements  # noqa: SLF001
    insert = statements.insert

    async def stall(*batch: Any) -> None:
        stalls.set()
        await goes_on.wait()
        await insert(*batch)

    monkeypatch.setattr(statements, "insert", stall)
    async with asyncio.TaskGroup() as group:
        stalled = group.create_task(ledgers[0].post([win("stalled")]))
        await stalls.wait()
        waits = group.create_task(post(ledgers[1], win("waits"), win("waits-too", player_id="ben")))
        await until_waiting(ledgers[2])
        assert results(await post(ledgers[2], win("passes", player_id="carl"))) == [OutcomeCode.UNKNOWN_PLAYER]
        assert results(await post(ledgers[2], win("passes", player_id="ben"))) == [OutcomeCode.POSTED]
        assert not waits.done()
        goes_on.set()
    outcomes = [*stalled.result().outcomes, *waits.result()]
    assert results(outcomes) == [OutcomeCode.POSTED] * 3
    assert [receipt(outcome).balance_minor for outcome in outcomes] == [1050, 2100, 2100]


async def until_waiting(ledger: Ledger) -> None:
    """Return when a worker waits for another's transaction."""
    async with ledger._engine.connect() as connection, asyncio.timeout(10):  # noqa: SLF001
        while not (await connection.execute(_WAITING_FOR_A_TRANSACTION)).scalar_one():
            await asyncio.sleep(0.01)


_WAITING_FOR_A_TRANSACTION = text(
    "SELECT COUNT(*) FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE NOT granted AND locktype = 'transactionid' AND datname = current_database()"
)
