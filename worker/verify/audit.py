"""The audit of the books: every invariant, asked of the database, on one snapshot, while credits go on.

Incremental, it begins at the last verified point (see `points`) and proves, as long as the rows that
were verified before are still what they were:

- every wallet's balance is what was verified plus its entries since, numbered without gaps. So no credit that
  was paid is passed over, however late it was committed and however low its id;
- every transfer since, and every one of the minutes before the point, is whole: legs, owners, told balances,
  and an id that is posted once.

Only a full audit reads everything again. It alone proves that no row that was verified before was altered,
removed or slipped in behind the ledger's back, that no index has lost a row, and that lost bets, which move
nothing and so leave no gap, are in order when a worker's clock was further behind than the margin.

It only reads, but for the point in the end, and nothing waits for it. What it needs of memory does not grow
with the books: the database sorts on disk.
"""

from datetime import datetime
from typing import Final, Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from worker.database.faults import outages_as_unavailable
from worker.database.transactions import snapshot
from worker.queries.views import Amount, amount_of
from worker.verify.checkpoints import Checkpoint, keep, last_point, state_read
from worker.verify.runner import AuditRun, Finding, Progress

CASES_MAX: Final = 20
"""How many cases of one broken invariant are told; the others are counted."""


class Sum(msgspec.Struct, frozen=True):
    """What was paid in one currency by the transfers that were read."""

    paid: Amount
    transfers: int


class Coverage(msgspec.Struct, frozen=True):
    """What an audit has read."""

    mode: Literal["full", "incremental"]
    read_at: datetime
    """The books were read as they were at this moment."""

    since: datetime | None
    """The verified point that an incremental audit builds on."""

    from_transfer_id: str | None
    """Transfers were read from this id on; None: all of them."""

    to_transfer_id: str | None
    """The highest id that was read; None: there was none."""

    is_verified_point: bool
    """The next audit builds on this state."""

    not_kept: str | None
    """Why it does not, though everything holds."""


class Audit(msgspec.Struct, frozen=True):
    """What was read, and whether everything in it holds."""

    holds: bool
    coverage: Coverage
    transfers: int
    entries: int
    wallets: int
    sums: list[Sum]
    findings: list[Finding]
    """One for each invariant that was asked, in the order of INVARIANTS."""


def _silent(_part: float, _doing: str) -> None:
    """Tell nobody."""


async def verify(
    engine: AsyncEngine,
    currencies: Currencies,
    *,
    full: bool = False,
    cases_max: int = CASES_MAX,
    progress: Progress = _silent,
) -> Audit:
    """Audit the books as they are at this moment: since the last verified point, or `full`.

    Before there is a point it is full anyway. Takes time with what it reads: use a patient engine. Raises
    LedgerUnavailable.
    """
    with outages_as_unavailable():
        async with snapshot(engine) as connection:
            last, read_at = await last_point(connection), await state_read(connection)
            inquiry = AuditRun(connection, None if full else last, cases_max, progress)
            await inquiry.run()
            point = _point(inquiry, last.id + 1 if last else 1, read_at)
            not_kept = await keep(engine, connection, point) if inquiry.holds else None
    return _audit(inquiry, currencies, point, not_kept)


def _point(inquiry: AuditRun, number: int, read_at: datetime) -> Checkpoint:
    return Checkpoint(
        id=number,
        verified_at=read_at,
        is_full=inquiry.base is None,
        from_transfer_id=None if inquiry.base is None else inquiry.first,
        to_transfer_id=inquiry.to_transfer_id,
        transfers=inquiry.transfers,
    )


def _audit(inquiry: AuditRun, currencies: Currencies, point: Checkpoint, not_kept: str | None) -> Audit:
    return Audit(
        holds=inquiry.holds,
        coverage=Coverage(
            mode="full" if point.is_full else "incremental",
            read_at=point.verified_at,
            since=inquiry.base.verified_at if inquiry.base else None,
            from_transfer_id=str(point.from_transfer_id) if point.from_transfer_id else None,
            to_transfer_id=str(point.to_transfer_id) if point.to_transfer_id else None,
            is_verified_point=inquiry.holds and not_kept is None,
            not_kept=not_kept,
        ),
        transfers=inquiry.transfers,
        entries=inquiry.entries,
        wallets=inquiry.wallets,
        sums=[
            Sum(amount_of(currencies, minor, currency), count)
            for currency, (minor, count) in sorted(inquiry.paid.items())
        ],
        findings=inquiry.findings,
    )
