"""What a credit costs as the books grow: `python -m tests.bench.growth 10000 100000 1000000 10000000`.

Loads books of each size, all with the same players, and does the same to each by turns, so that whatever
else the machine is doing slows all of them alike. Prints medians in ms, their ratio to the smallest books',
and what was written to the write-ahead log. On a PostgreSQL started for it, with its own defaults; `--on URL`
takes a server that is there already, and leaves the books on it for the next time.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import Annotated, Final

import asyncpg
import typer
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from shared.operations import Credit, Wallet
from shared.queries import FindPlayer
from shared.settings import LedgerSettings
from tests.bench.books import INTEGRATION, fill, provider_tx_id
from tests.support.credits import win
from tests.support.servers import running_servers
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.database.schema import transfers
from worker.ledger.transaction import Ledger
from worker.queries.paging import Page
from worker.queries.queries import show_player, show_round, show_transfer

PLAYERS: Final = 10_000
BATCH: Final = 100
WARM_UP_ROUNDS: Final = 5
_numbers = count()


@dataclass
class Books:
    """Books of one size, and what was measured on them."""

    transfers: int
    engine: AsyncEngine
    times_ms: dict[str, list[float]] = field(default_factory=dict)
    wal_bytes: dict[str, list[int]] = field(default_factory=dict)

    async def time(self, what: str, do: Callable[[], Awaitable[object]]) -> None:
        """Do it once and note how long it took."""
        before = await self._wal_position()
        started = time.perf_counter()
        await do()
        self.times_ms.setdefault(what, []).append((time.perf_counter() - started) * 1000)
        self.wal_bytes.setdefault(what, []).append(await self._wal_position() - before)

    async def _wal_position(self) -> int:
        async with self.engine.connect() as connection:
            return int((await connection.execute(_WAL_POSITION)).scalar_one())


_WAL_POSITION = text("SELECT CAST(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') AS bigint)")


def new_credits(size: int) -> list[Credit]:
    """Return wins of different players, with ids among those of the books: providers' come in no order."""
    return [
        win(
            f"tx-{random.getrandbits(54)}",
            player_id=f"player-{next(_numbers) * 7919 % PLAYERS}",
            integration=INTEGRATION,
            round_id=f"round-{random.getrandbits(54)}",
        )
        for _ in range(size)
    ]


async def posted_credits(books: Books, size: int) -> list[Credit]:
    """Return credits that were posted long ago, from all over the books."""
    ids = [provider_tx_id(random.randrange(books.transfers)) for _ in range(size)]
    found = select(transfers).where(transfers.c.integration == INTEGRATION, transfers.c.provider_tx_id.in_(ids))
    async with books.engine.connect() as connection:
        return [
            Credit(
                **{name: row[name] for name in ("integration", "provider_tx_id", *Credit.FINGERPRINT)},
                wallet=Wallet.BONUS if row["bonus_minor"] else Wallet.REAL,
            )
            for row in (await connection.execute(found)).mappings()
        ]


async def post_new(ledger: Ledger, new: Sequence[Credit]) -> None:
    """Post credits as a worker does that remembers none of their players."""
    if await ledger.post_new(new) is None:
        raise RuntimeError("credits that nobody has posted were taken for repeats")


async def measure(books: Books) -> None:
    """Do everything once."""
    ledger, currencies = Ledger(books.engine), Currencies()
    old = await posted_credits(books, BATCH)
    first = old[0]
    new = new_credits(1 + BATCH)
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "a credit": lambda: post_new(ledger, new[:1]),
        f"{BATCH} credits": lambda: post_new(ledger, new[1:]),
        "a repeat": lambda: ledger.post(old[:1]),
        f"{BATCH} repeats": lambda: ledger.post(old),
        "a balance": lambda: ledger.find([FindPlayer(first.player_id)]),
        "transfer show": lambda: show_transfer(books.engine, currencies, *first.identity),
        "player show": lambda: show_player(books.engine, currencies, first.player_id),
        "round show": lambda: show_round(books.engine, currencies, INTEGRATION, first.round_id or "", Page()),
    }
    for what, do in questions.items():
        await books.time(what, do)


async def opened(server_url: str, size: int, tell: Callable[[str], None]) -> Books:
    """Return books of a size, loaded if they are not on the server yet."""
    name = f"growth_{size}"
    connection = await asyncpg.connect(server_url.replace("+asyncpg", ""))
    is_new = await connection.fetchval("SELECT NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)", name)
    if is_new:
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = f"{server_url.rpartition('/')[0]}/{name}"
    settings = LedgerSettings(database_url=url)
    if is_new:
        await load(settings, size, tell)
    return Books(size, create_engine(settings))


async def load(settings: LedgerSettings, size: int, tell: Callable[[str], None]) -> None:
    """Load books of a size, and tell how long it took."""
    started = time.monotonic()
    engine = create_engine(settings, no_statement_timeout=True)
    await migrate(engine)
    await fill(engine, size, PLAYERS)
    await engine.dispose()
    tell(f"{size} transfers loaded in {time.monotonic() - started:.0f} s")


def table(all_books: Sequence[Books]) -> str:
    """Return the medians, each beside its ratio to the smallest books'."""
    lines = [f"{'':16}" + "".join(f"{books.transfers:>24,}" for books in all_books)]
    for what in all_books[0].times_ms:
        medians = [statistics.median(books.times_ms[what]) for books in all_books]
        wal = [statistics.mean(books.wal_bytes[what]) / 1024 for books in all_books]
        cells = (f"{ms:8.2f} {ms / medians[0]:5.2f}x {kib:6.0f} K" for ms, kib in zip(medians, wal, strict=True))
        lines.append(f"{what:16}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


async def measured(server_url: str, sizes: Sequence[int], rounds: int, tell: Callable[[str], None]) -> list[Books]:
    """Return books of all sizes, measured by turns."""
    all_books = [await opened(server_url, size, tell) for size in sizes]
    for number in range(rounds + WARM_UP_ROUNDS):
        for books in all_books:
            if number == WARM_UP_ROUNDS:
                books.times_ms.clear()
                books.wal_bytes.clear()
            await measure(books)
    for books in all_books:
        await books.engine.dispose()
    return all_books


async def run(server_url: str, sizes: Sequence[int], rounds: int) -> None:
    """Measure, and print what was measured."""
    all_books = await measured(server_url, sizes, rounds, say)
    say(f"medians in ms of {rounds} rounds, ratio to {sizes[0]:,}, WAL in KiB")
    say(table(all_books))


def main(
    sizes: Annotated[list[int], typer.Argument(help="Transfers in the books, smallest first.")],
    rounds: Annotated[int, typer.Option(min=3)] = 200,
    on: Annotated[str, typer.Option(metavar="URL", help="A PostgreSQL, postgresql+asyncpg://...")] = "",
) -> None:
    """Tell what a credit, a repeat and the questions cost in books of each size."""
    with ExitStack() as at_end:
        server_url = on or at_end.enter_context(running_servers()).database_url
        asyncio.run(run(server_url, sizes, rounds))


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    typer.run(main)
