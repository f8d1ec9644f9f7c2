"""The verified point: where the next audit may begin, and what every wallet was there.

An audit that finds everything in order leaves a row in `verified_points`, and in `verified_wallets` the
number of entries and the balance of every wallet, all of the one state that it read. The next one reads the
transfers that came later. Ids say when, but not quite: workers make them, by their own clocks, before they
commit. So it begins MARGIN before the point, and then counts: the numbers of a wallet's entries have no gaps,
so a wallet that lacks some of its new ones got them under lower ids, and the audit begins where those do.
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
"""How far a worker's clock may be behind, and a transaction be under way, before ids must be looked for."""

LOWEST_ID: Final = UUID(int=0)
HIGHEST_ID: Final = UUID(int=2**128 - 1)

WALLETS_AT_ONCE: Final = 10_000

COMMIT_SECONDS_MAX: Final = 30.0
"""How long an audit waits for replicas to confirm its point; it has to end where there are none."""


_MILLIS_SHIFT: Final = 80
"""A UUIDv7 begins with 48 bits of Unix milliseconds."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A state of the books in which everything held. The columns of `verified_points`."""

    id: int
    verified_at: datetime
    is_full: bool
    from_transfer_id: UUID | None
    to_transfer_id: UUID | None
    transfers: int

    @property
    def next_from(self) -> UUID:
        """The id from which the next audit reads: MARGIN before the point by the earlier of two clocks.

        The database's clock tells when the point was, the highest id what the workers' clocks made of it.
        """
        millis = int(self.verified_at.timestamp() * 1000)
        if self.to_transfer_id is not None:
            millis = min(millis, self.to_transfer_id.int >> _MILLIS_SHIFT)
        return UUID(int=max(0, millis - MARGIN // timedelta(milliseconds=1)) << _MILLIS_SHIFT)


async def last_point(connection: AsyncConnection) -> Checkpoint | None:
    """Return the last verified point, or None before the first."""
    newest = select(verified_points).order_by(verified_points.c.id.desc()).limit(1)
    row = (await connection.execute(newest)).one_or_none()
    return None if row is None else Checkpoint(row[0], utc(row[1]), *row[2:])


async def state_read(connection: AsyncConnection) -> datetime:
    """Return when the snapshot was taken, by the database's clock."""
    return utc((await connection.execute(select(func.now()))).scalar_one())


async def highest_id(connection: AsyncConnection) -> UUID | None:
    """Return the highest id of a transfer, or None if there is none."""
    newest = select(transfers.c.id).order_by(transfers.c.id.desc()).limit(1)
    return (await connection.execute(newest)).scalar_one_or_none()


async def oldest_late(connection: AsyncConnection, wallet_ids: Collection[UUID], first: UUID) -> UUID | None:
    """Return the lowest id below `first` of a transfer with an entry that the wallets got since the point."""
    parameters = {"wallet_ids": list(wallet_ids), "first": first}
    lowest = (await connection.execute(_OLDEST_LATE, parameters)).scalar_one()
    return None if lowest is None else UUID(lowest)


# The lowest as text, for want of MIN(uuid): the first of an ordered list might be sought through all ids.
_OLDEST_LATE: Final = text(
    """
    SELECT MIN(CAST(t.id AS text)) FROM wallets AS w
    JOIN transfers AS t ON t.player_id = w.player_id
    JOIN entries AS e ON e.transfer_id = t.id AND e.wallet_id = w.id
    LEFT JOIN verified_wallets AS v ON v.wallet_id = w.id
    WHERE w.id IN :wallet_ids AND t.id < :first AND (v.version IS NULL OR e.wallet_version > v.version)
    """
).bindparams(bindparam("wallet_ids", type_=Uuid, expanding=True), bindparam("first", type_=Uuid))


async def keep(engine: AsyncEngine, read: AsyncConnection, point: Checkpoint) -> str | None:
    """Write a point and the wallets as `read` sees them, in one transaction.

    Returns None, or why they could not be written: then everything is as it was, and what was read is no less
    true. Where the wait for replicas was canceled the point stands, and may be lost with the primary.
    """
    try:
        async with engine.connect() as connection:
            await connection.execute(insert(verified_points).values(msgspec.structs.asdict(point)))
            async for wallets in _moved_wallets(read):
                await connection.execute(_KEEP_WALLETS, wallets)
            async with asyncio.timeout(COMMIT_SECONDS_MAX):
                await commit(connection)
    except TimeoutError:
        return f"no replica has confirmed it within {COMMIT_SECONDS_MAX:.0f} s"
    except IntegrityError:
        return "another audit was faster"
    except LedgerUnavailable as error:
        return str(error)
    except DBAPIError as error:
        if is_outage(error):  # or a standby, or a user that may not write: an audit is welcome there too
            return next(iter(str(error.orig).splitlines()), "no answer from the database")
        raise
    return None


async def _moved_wallets(connection: AsyncConnection) -> Any:
    moved = await connection.stream(_MOVED_WALLETS, execution_options={"yield_per": WALLETS_AT_ONCE})
    async for rows in moved.mappings().partitions(WALLETS_AT_ONCE):
        yield [dict(row) for row in rows]


_MOVED_WALLETS: Final = text(
    """
    SELECT w.id AS wallet_id, w.version, w.balance_minor
    FROM wallets AS w LEFT JOIN verified_wallets AS v ON v.wallet_id = w.id
    WHERE w.version > COALESCE(v.version, 0)
    """
)
_KEEP_WALLETS: Final = text(
    """
    INSERT INTO verified_wallets (wallet_id, version, balance_minor)
    VALUES (:wallet_id, :version, :balance_minor)
    ON CONFLICT (wallet_id) DO UPDATE SET version = excluded.version, balance_minor = excluded.balance_minor
    """
)
