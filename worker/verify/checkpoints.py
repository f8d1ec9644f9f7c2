"""A checkpoint, or verified point, is a state of the ledger from which the next audit may start.

An audit that finds everything in order writes a row to `verified_points`, and to `verified_wallets` the number
of entries and the balance of every wallet, all from the snapshot that it read. The next audit reads the later
transfers. Ids give their time only roughly, because workers make them by their own clocks before they commit.
So an audit starts MARGIN before the point, and then counts: a wallet's entries are numbered without gaps, so
where some of its new entries are missing, they have lower ids, and the audit starts at the lowest of those.
"""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import Uuid, bindparam, func, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import LedgerUnavailable
from worker.database.engine import utc
from worker.database.faults import is_outage
from worker.database.replication import commit
from worker.database.schema import transfers, verified_points

MARGIN: Final = timedelta(minutes=5)
"""The clock lag and transaction time of workers within which an audit finds new entries without a search."""

LOWEST_ID: Final = UUID(int=0)
HIGHEST_ID: Final = UUID(int=2**128 - 1)

WALLETS_PER_INSERT: Final = 10_000

COMMIT_SECONDS_MAX: Final = 30.0
"""How long an audit waits for replicas to confirm its point; without a limit it would not end if none answers."""

_MILLIS_SHIFT: Final = 80
"""A UUIDv7 begins with 48 bits of Unix milliseconds."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A state of the ledger in which every invariant held: a row of `verified_points`."""

    id: int
    verified_at: datetime
    is_full: bool
    from_transfer_id: UUID | None
    to_transfer_id: UUID | None
    transfers: int

    @property
    def next_from(self) -> UUID:
        """The id from which the next audit reads: MARGIN before the point by the earlier of two clocks.

        `verified_at` is the point's time by the database's clock, the highest id has it by the workers' clocks.
        """
        millis = int(self.verified_at.timestamp() * 1000)
        if self.to_transfer_id is not None:
            millis = min(millis, self.to_transfer_id.int >> _MILLIS_SHIFT)
        return UUID(int=max(0, millis - MARGIN // timedelta(milliseconds=1)) << _MILLIS_SHIFT)


async def last_checkpoint(connection: AsyncConnection) -> Checkpoint | None:
    """Return the last verified point, or None before the first."""
    newest = select(verified_points).order_by(verified_points.c.id.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    return None if row is None else Checkpoint(row[0], utc(row[1]), *row[2:])


async def snapshot_time(connection: AsyncConnection) -> datetime:
    """Return when the snapshot was taken, by the database's clock."""
    return utc((await connection.execute(select(func.now()))).scalar_one())


async def highest_transfer_id(connection: AsyncConnection) -> UUID | None:
    """Return the highest id of a transfer, or None if there is none."""
    newest = select(transfers.c.id).order_by(transfers.c.id.desc()).limit(1)
    return (await connection.execute(newest)).scalar_one_or_none()


async def lowest_missed_id(connection: AsyncConnection, wallet_ids: Collection[UUID], first: UUID) -> UUID | None:
    """Return the lowest id below `first` of a transfer with an entry that the wallets got since the point."""
    parameters = {"wallet_ids": list(wallet_ids), "first": first}
    lowest = (await connection.execute(_LOWEST_MISSED, parameters)).scalar_one()
    return None if lowest is None else UUID(lowest)


# MIN of the ids as text, because there is no MIN(uuid), and for ORDER BY ... LIMIT 1 a plan may scan all ids.
_LOWEST_MISSED: Final = text(
    """
    SELECT MIN(CAST(t.id AS text)) FROM wallets AS w
    JOIN transfers AS t ON t.player_id = w.player_id
    JOIN entries AS e ON e.transfer_id = t.id AND e.wallet_id = w.id
    LEFT JOIN verified_wallets AS v ON v.wallet_id = w.id
    WHERE w.id IN :wallet_ids AND t.id < :first AND (v.version IS NULL OR e.wallet_version > v.version)
    """
).bindparams(bindparam("wallet_ids", type_=Uuid, expanding=True), bindparam("first", type_=Uuid))


async def save(engine: AsyncEngine, read: AsyncConnection, checkpoint: Checkpoint) -> str | None:
    """Write a checkpoint and the wallets as `read` sees them, in one transaction.

    Returns None, or the reason why they could not be written: then nothing has changed, and the audit's result
    is valid all the same. If the wait for replicas was canceled, the point is written, and may be lost with
    the primary.
    """
    try:
        async with engine.connect() as connection:
            await connection.execute(insert(verified_points).values(msgspec.structs.asdict(checkpoint)))
            async for wallets in _changed_wallets(read):
                await connection.execute(_SAVE_WALLETS, wallets)
            async with asyncio.timeout(COMMIT_SECONDS_MAX):
                await commit(connection)
    except TimeoutError:
        return f"no replica has confirmed it within {COMMIT_SECONDS_MAX:.0f} s"
    except IntegrityError:
        return "another audit was faster"
    except LedgerUnavailable as error:
        return str(error)
    except DBAPIError as error:
        if is_outage(error):  # also a standby or a user without the right to write, where audits may run too
            return next(iter(str(error.orig).splitlines()), "no answer from the database")
        raise
    return None


async def _changed_wallets(connection: AsyncConnection) -> Any:
    changed = await connection.stream(_CHANGED_WALLETS, execution_options={"yield_per": WALLETS_PER_INSERT})
    async for rows in changed.mappings().partitions(WALLETS_PER_INSERT):
        yield [dict(row) for row in rows]


_CHANGED_WALLETS: Final = text(
    """
    SELECT w.id AS wallet_id, w.version, w.balance_minor
    FROM wallets AS w LEFT JOIN verified_wallets AS v ON v.wallet_id = w.id
    WHERE w.version > COALESCE(v.version, 0)
    """
)
_SAVE_WALLETS: Final = text(
    """
    INSERT INTO verified_wallets (wallet_id, version, balance_minor)
    VALUES (:wallet_id, :version, :balance_minor)
    ON CONFLICT (wallet_id) DO UPDATE SET version = excluded.version, balance_minor = excluded.balance_minor
    """
)
