"""The audit of a ledger at work is in nobody's way, sees one moment, and needs no more memory for more."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from shared.settings import LedgerSettings
from tests.bench.books import fill
from tests.support.audits import audit_of, broken
from tests.support.credits import win
from tests.support.servers import fresh_database
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.database.transactions import snapshot
from worker.ledger.transaction import Ledger
from worker.players import add_player
from worker.verify import verify

pytestmark = pytest.mark.any_server

PLAYERS = ("anna", "ben", "cleo")
TASKS = {"postgresql": 4, "sqlite": 1}
PAUSE_SECONDS = {"postgresql": 0, "sqlite": 0.005}
"""SQLite gives its lock to whoever happens to ask when it is free: an audit's last words would wait long."""


@asynccontextmanager
async def wins_at_full_speed(engine: AsyncEngine) -> AsyncIterator[None]:
    """Wins and lost bets until the end of the block, on PostgreSQL of several workers."""
    for player_id in PLAYERS:
        await add_player(engine, player_id, "EUR")
    ledger, stop, numbers = Ledger(engine), asyncio.Event(), count()

    async def pay() -> None:
        while not stop.is_set():
            some = [next(numbers) for _ in range(10)]
            await ledger.post([win(f"{n}", player_id=PLAYERS[n % 3], amount_minor=n % 4) for n in some])
            await asyncio.sleep(PAUSE_SECONDS[engine.dialect.name])

    tasks = [asyncio.create_task(pay()) for _ in range(TASKS[engine.dialect.name])]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def test_audits_hold_while_wins_are_paid(engine: AsyncEngine) -> None:
    async with wins_at_full_speed(engine):
        audits = [await audit_of(engine, full=n % 4 == 3) for n in range(12)]
    audits.append(await audit_of(engine, full=True))
    assert all(audit.holds for audit in audits), [broken(audit) for audit in audits]
    seen = [audit.transfers for audit in audits]
    assert seen == sorted(seen)
    assert len(set(seen)) > len(seen) / 2, "wins were paid all the time"


async def test_wins_are_paid_during_an_audit(engine: AsyncEngine) -> None:
    statement = text("SELECT COUNT(*) FROM transfers")
    await add_player(engine, "anna", "EUR")
    async with snapshot(engine) as connection:
        before = (await connection.execute(statement)).scalar_one()
        await Ledger(engine).post([win("during the audit")])
        assert (await connection.execute(statement)).scalar_one() == before


async def test_audit_takes_no_lock_that_a_win_could_wait_for(postgres: AsyncEngine) -> None:
    await fill(postgres, 20_000, 100)
    auditing, modes = asyncio.create_task(audit_of(postgres)), set()
    while not auditing.done():
        async with postgres.connect() as connection:
            modes |= set((await connection.execute(_LOCKS)).scalars())
    assert (await auditing).coverage.is_verified_point
    assert modes == {"AccessShareLock"}


_LOCKS = text("""
    SELECT DISTINCT mode FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE relname IN ('players', 'wallets', 'transfers', 'entries') AND pid <> pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")


async def test_row_that_an_index_has_lost_is_missed(postgres: AsyncEngine) -> None:
    """Such an index is made by telling PostgreSQL for a while that it need not be kept."""
    await fill(postgres, 1_000, 10)
    switch = text("UPDATE pg_index SET indisready = :ready WHERE indexrelid = CAST('pk_transfers' AS regclass)")
    for ready in (False, True):
        async with postgres.begin() as connection:
            await connection.execute(switch, {"ready": ready})
        await postgres.dispose()
        if not ready:
            await Ledger(postgres).post([win("lost", player_id="player-1", amount_minor=0)])
    (finding,) = [f for f in (await audit_of(postgres, full=True)).findings if f.broken]
    assert finding.cases == [{"table_name": "transfers", "rows_held": 1_001, "rows_found": 1_000}]


async def test_progress_goes_from_nothing_to_all(engine: AsyncEngine) -> None:
    await fill(engine, 2_000, 10)
    told: list[tuple[float, str]] = []
    await verify(engine, Currencies(), progress=lambda part, doing: told.append((part, doing)))
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert (parts[0], told[0][1]) == (0, "sum_zero")
    assert 0.8 < parts[-1] <= 1


_AUDIT = """
import asyncio, re, resource, sys
from pathlib import Path
from shared.money import Currencies
from shared.settings import LedgerSettings
from worker.database.engine import create_engine
from worker.verify import verify

async def main():
    engine = create_engine(LedgerSettings(database_url=sys.argv[1]), no_statement_timeout=True)
    audit = await verify(engine, Currencies(), full=True)
    await engine.dispose()
    assert audit.holds
    status = Path("/proc/self/status")
    if status.exists():  # where getrusage would tell the peak of whoever started this
        print(re.search("VmHWM: *\\t* *([0-9]+) kB", status.read_text())[1])
    else:  # macOS, in bytes
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)

asyncio.run(main())
"""


async def peak_kilobytes_of_an_audit(database_url: str, transfers: int, players: int) -> int:
    engine = create_engine(LedgerSettings(database_url=database_url), no_statement_timeout=True)
    try:
        await migrate(engine)
        await fill(engine, transfers, players)
    finally:
        await engine.dispose()
    audit = [sys.executable, "-c", _AUDIT, database_url]
    ended = await asyncio.to_thread(subprocess.run, audit, check=True, capture_output=True, text=True)
    return int(ended.stdout)


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_books(
    database_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    larger_url = f"sqlite+aiosqlite:///{tmp_path}/larger.db"
    if database_url.startswith("postgresql"):
        larger_url = await fresh_database(request.getfixturevalue("servers"))
    small = await peak_kilobytes_of_an_audit(database_url, transfers=10_000, players=1_000)
    large = await peak_kilobytes_of_an_audit(larger_url, transfers=300_000, players=30_000)
    assert large - small < 30_000, (small, large)
