"""The database is restored to a moment before the last wins, by the scripts of deploy/backup.

Nobody says so to any process: those that remember lost wins must find out, and pay them when they come again.
"""

# ruff: noqa: S608  (the statements are this file's own)

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

import asyncpg
import pytest
from redis.asyncio import Redis

from gateway.providers.base import Win
from simulator.history import ReplyMeaning
from simulator.senders import Behaviour, Senders
from tests.support.audits import audit_of
from tests.support.servers import Server, Servers
from tests.support.servers.restorable import RestorableServer, running_restorable_server
from tests.support.system import SESSION, System, running_system
from worker.ledger.transaction import Ledger
from worker.verify import Audit

pytestmark = pytest.mark.servers

PLAYERS = ("anna", "berta", "carl")
NEWCOMER = "dora"
WINS_EACH = 3
"""Of each player, by each provider."""

UNTIL_SECONDS = 30

Sent = tuple[str, Win]
"""A win with the integration that sends it."""


@pytest.fixture(scope="module")
def restorable(servers: Servers) -> Iterator[RestorableServer]:
    with running_restorable_server(servers.postgres) as running:
        yield running


@dataclass(slots=True)
class Drill:
    """A system on a database that can be restored."""

    system: System
    database: RestorableServer
    cache_url: str

    def wins(self, *player_ids: str) -> list[Sent]:
        """Return new wins of all providers."""
        return [
            (name, Win(str(uuid4()), player_id, f"{SESSION}{player_id}", "10.50", "EUR", f"round-{number}"))
            for number in range(WINS_EACH)
            for player_id in player_ids
            for name in self.system.providers
        ]

    async def pay(self, wins: Sequence[Sent]) -> list[str]:
        """Send wins until each is told as paid; return the ids of the transfers that were told."""
        senders = Senders(self.system.url, self.system.providers, (), Behaviour(hurry=10))
        said = await asyncio.gather(*(senders.send_one(*sent) for sent in wins))
        senders.close()
        assert said == [ReplyMeaning.PAID] * len(wins)
        told = {a.content.provider_tx_id: a.receipt.transfer_id for a in senders.attempts if a.receipt}
        return [told[win.provider_tx_id] for _, win in wins]

    async def send_in_vain(self, wins: Sequence[Sent]) -> None:
        """Send wins once, and see that none is told as paid."""
        senders = Senders(self.system.url, self.system.providers, (), Behaviour(retries=False))
        said = await asyncio.gather(*(senders.send_one(*sent) for sent in wins))
        senders.close()
        assert set(said) <= {ReplyMeaning.ASK_AGAIN, None}

    async def until_cached(self, wins: Sequence[Sent]) -> None:
        """Return when Redis says of each of these wins that it is paid."""
        ids = {win.provider_tx_id for _, win in wins}
        async with Redis.from_url(self.cache_url) as redis, asyncio.timeout(UNTIL_SECONDS):
            while ids - {key.decode()[-36:] async for key in redis.scan_iter("credits:*", count=1_000)}:
                await asyncio.sleep(0.05)

    async def posted(self, wins: Sequence[Sent]) -> list[str]:
        """Return the ids of the transfers that the ledger has of these wins, in their order."""
        ids = [win.provider_tx_id for _, win in wins]
        rows = await self.system.query(
            f"SELECT provider_tx_id, CAST(id AS text) FROM transfers WHERE provider_tx_id = ANY(ARRAY{ids})"
        )
        by_win = dict(rows)
        assert len(rows) == len(by_win), "a win is paid twice"
        return [by_win[id_] for id_ in ids if id_ in by_win]

    async def until_posted(self, wins: Sequence[Sent]) -> None:
        """Return when the ledger has each of these wins, though nobody sends them."""
        async with asyncio.timeout(UNTIL_SECONDS):
            while len(await self.posted(wins)) < len(wins):
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Stop the database in good order."""
        await asyncio.to_thread(self.database.server.stop)
        await self.system.engine.dispose()


async def start_restored(server: Server) -> None:
    """Start the server, and return when it has replayed all that it should and is a primary."""
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(UNTIL_SECONDS):
        while await execute(server, "SELECT pg_is_in_recovery()"):
            await asyncio.sleep(0.05)


async def execute(server: Server, statement: str) -> object:
    connection = await asyncpg.connect(server.url.replace("+asyncpg", ""))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@pytest.fixture
async def drill(servers: Servers, restorable: RestorableServer) -> AsyncIterator[Drill]:
    async with running_system(
        replace(servers, postgres=restorable.server),
        CREDITS_CACHE__TIMEOUT_SECONDS="2",  # a busy machine must not look like a slow cache
    ) as system:
        await system.add_players(PLAYERS)
        yield Drill(system, restorable, servers.cache_url)


async def verified(system: System, *, full: bool = False) -> Audit:
    """Have the books audited, which must hold."""
    audit = await audit_of(system.engine, full=full)
    assert audit.holds, [finding for finding in audit.findings if finding.broken]
    return audit


@pytest.mark.parametrize("processes", ["running", "restarted"])
async def test_wins_lost_by_a_restore_are_paid_when_they_come_again(drill: Drill, processes: str) -> None:
    system, database = drill.system, drill.database
    ledger = Ledger(system.engine)
    base = await asyncio.to_thread(database.back_up)
    kept = drill.wins(*PLAYERS)
    told_of_kept = await drill.pay(kept)
    verified_at = (await verified(system)).coverage.read_at
    epoch = await ledger.keyed_epoch()
    await system.query(f"SELECT pg_create_restore_point('{processes}')")
    await system.add_players([NEWCOMER])
    lost = drill.wins(*PLAYERS, NEWCOMER)
    told_of_lost = await drill.pay(lost)
    await drill.until_cached(lost)
    assert await drill.pay(lost) == told_of_lost
    await verified(system)

    await drill.stop()
    late = drill.wins(*PLAYERS)
    await drill.send_in_vain(late)
    if processes == "restarted":
        await asyncio.gather(*(process.end() for process in system.processes))
    old_data = await asyncio.to_thread(database.restore, base, "name", processes)
    assert old_data
    await start_restored(database.server)
    assert await drill.posted(kept) == told_of_kept
    assert not await drill.posted(lost)
    await system.add_players([NEWCOMER])
    if processes == "restarted":
        for process in system.processes:
            process.start()
    await system.until_ready()

    # Together: Redis is asked only about a batch that is not all new.
    told_again = await drill.pay([*kept, *lost])
    assert told_again[: len(kept)] == told_of_kept
    told_again = told_again[len(kept) :]
    assert not set(told_again) & set(told_of_lost)
    assert await drill.posted(lost) == told_again
    assert await drill.pay([*kept, *lost]) == [*told_of_kept, *told_again]
    await drill.until_posted(late)
    assert await drill.pay(late) == await drill.posted(late)
    each_paid = 10_50 * WINS_EACH * len(system.providers)
    assert await system.balances() == {**dict.fromkeys(PLAYERS, 3 * each_paid), NEWCOMER: each_paid}
    assert (await ledger.keyed_epoch()).name != epoch.name
    assert (await verified(system)).coverage.since == verified_at, "of which the restored books know"
    assert (await verified(system, full=True)).coverage.since is None


async def test_archive_has_what_a_restore_has_undone(restorable: RestorableServer) -> None:
    """So the wins that were lost can be looked up in it, or the restore be undone."""
    server = restorable.server
    base = await asyncio.to_thread(restorable.back_up)
    await execute(server, "CREATE TABLE kept (number int)")
    timeline = await execute(server, "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")
    moment = str(await execute(server, "SELECT clock_timestamp()::text"))
    await execute(server, "CREATE TABLE lost (number int)")

    async def restore(*target: str, timeline: str = "") -> object:
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(restorable.restore, base, *target, timeline=timeline)
        await start_restored(server)
        tables = "SELECT array_agg(relname::text ORDER BY relname) FROM pg_class WHERE relname IN ('kept', 'lost')"
        return await execute(server, tables)

    assert await restore("time", moment) == ["kept"]
    assert await restore("latest", timeline=str(int(str(timeline), 16))) == ["kept", "lost"]
