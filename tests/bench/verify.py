"""What an audit costs: `python -m tests.bench.verify 100000 1000000 10000000`.

For each size: loads books, audits them in full, pays 10,000 new wins through the ledger, and audits those.
On a PostgreSQL started for it, with its own defaults; times tell little while anything else is at work.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from itertools import pairwise

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from shared.operations import Credit
from shared.settings import LedgerSettings
from tests.bench.books import fill
from tests.support.credits import win
from tests.support.servers import Servers, fresh_database, running_servers
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.ledger.transaction import Ledger
from worker.verify import Audit, verify

TRANSFERS_OF_A_PLAYER = 100
NEW = 10_000
BATCH = 100


async def measure(servers: Servers, transfers: int) -> None:
    """Print the times for books of one size."""
    settings = LedgerSettings(database_url=await fresh_database(servers))
    engine = create_engine(settings, no_statement_timeout=True)
    players = transfers // TRANSFERS_OF_A_PLAYER + 1
    try:
        await migrate(engine)
        started = time.monotonic()
        await fill(engine, transfers, players)
        say(f"\n{transfers} transfers of {players} players, loaded in {time.monotonic() - started:.1f} s")
        await audit(engine, "full")
        for batch in new_wins(players):
            await Ledger(engine).post(batch)
        await audit(engine, f"incremental, {NEW} new")
        await audit(engine, "incremental, none new")
        await audit(engine, "full again", full=True)
    finally:
        await engine.dispose()


def new_wins(players: int) -> Iterator[list[Credit]]:
    """Yield batches of wins, those of a batch for different players."""
    for first in range(0, NEW, BATCH):
        yield [win(f"new {n}", player_id=f"player-{n * 7919 % players}") for n in range(first, first + BATCH)]


async def audit(engine: AsyncEngine, name: str, *, full: bool = False) -> Audit:
    """Audit, and print how long each invariant took."""
    clock = [("", time.monotonic())]
    audited = await verify(
        engine, Currencies(), full=full, progress=lambda _, doing: clock.append((doing, time.monotonic()))
    )
    clock.append(("", time.monotonic()))
    seconds: dict[str, float] = {}
    for (doing, since), (_, until) in pairwise(clock):
        seconds[doing or "other"] = seconds.get(doing or "other", 0) + until - since
    shares = ", ".join(f"{doing} {took:.1f}" for doing, took in seconds.items())
    say(f"  {name}: {sum(seconds.values()):.1f} s, {audited.transfers} read ({shares})")
    assert audited.holds
    return audited


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    with running_servers() as started_servers:
        for size in sys.argv[1:] or ["100000"]:
            asyncio.run(measure(started_servers, int(size)))
