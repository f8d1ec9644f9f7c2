"""An audit checks every invariant against one snapshot of the ledger, while credits are being posted.

An incremental audit starts at the last verified point (see `checkpoints`). Provided that the rows verified
earlier have not changed, it proves that

- every wallet's balance is the verified one plus its entries since, which are numbered without gaps. So no
  paid credit is missed, however late it was committed and however low its id is;
- every transfer since, and of the minutes before the point, is complete: its legs, their owners, the balances
  that its reply gave, and an id that is posted once.

Only a full audit reads everything again. It alone proves that no verified row was altered, removed or inserted
behind the ledger's back, and that no index has lost a row. It alone checks every lost bet: one moves nothing,
so it leaves no gap that would lead an incremental audit to it if a worker's clock was behind by more than the
margin.

An audit only reads, except for the point that it writes at the end, and nothing waits for it. Its memory does
not grow with the ledger: the database sorts on disk.
"""

from datetime import datetime
from typing import Final, Literal

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from worker.database.faults import outages_as_unavailable
from worker.database.transactions import snapshot
from worker.queries.views import Amount, amount_of
from worker.verify.checkpoints import Checkpoint, last_checkpoint, save, snapshot_time
from worker.verify.runner import AuditRun, Finding, Progress

CASES_MAX: Final = 20
"""The most cases of one broken invariant that are listed; the others are only counted."""


class Sum(msgspec.Struct, frozen=True):
    """The amount paid in one currency by the transfers that were read."""

    paid: Amount
    transfers: int


class Coverage(msgspec.Struct, frozen=True):
    """The part of the ledger that an audit has read."""

    mode: Literal["full", "incremental"]
    read_at: datetime
    """The time of the snapshot."""

    since: datetime | None
    """The verified point that an incremental audit builds on."""

    from_transfer_id: str | None
    """The lowest id from which transfers were read; None if all were."""

    to_transfer_id: str | None
    """The highest id that was read; None if there are no transfers."""

    is_verified_point: bool
    """Whether the next audit may start from this state."""

    not_kept: str | None
    """Why it may not, although everything holds; else None."""


class Audit(msgspec.Struct, frozen=True):
    """The result of an audit: what was read, and whether every invariant holds in it."""

    holds: bool
    coverage: Coverage
    transfers: int
    entries: int
    wallets: int
    sums: list[Sum]
    findings: list[Finding]
    """One for each invariant that was checked, in the order of INVARIANTS."""


def _ignore_progress(_part: float, _invariant: str) -> None:
    """Do nothing: the default of callers that show no progress."""


async def verify(
    engine: AsyncEngine,
    currencies: Currencies,
    *,
    full: bool = False,
    cases_max: int = CASES_MAX,
    progress: Progress = _ignore_progress,
) -> Audit:
    """Audit the ledger as it is now: all of it if `full` or never verified, else since the last point.

    The duration grows with what is read, so the engine needs `no_statement_timeout`. Raises LedgerUnavailable.
    """
    with outages_as_unavailable():
        async with snapshot(engine) as connection:
            last, read_at = await last_checkpoint(connection), await snapshot_time(connection)
            run = AuditRun(connection, None if full else last, cases_max, progress)
            await run.run()
            checkpoint = _checkpoint(run, last.id + 1 if last else 1, read_at)
            not_saved = await save(engine, connection, checkpoint) if run.holds else None
    return _audit(run, currencies, checkpoint, not_saved)


def _checkpoint(run: AuditRun, number: int, read_at: datetime) -> Checkpoint:
    return Checkpoint(
        id=number,
        verified_at=read_at,
        is_full=run.base is None,
        from_transfer_id=None if run.base is None else run.first,
        to_transfer_id=run.to_transfer_id,
        transfers=run.transfers,
    )


def _audit(run: AuditRun, currencies: Currencies, checkpoint: Checkpoint, not_saved: str | None) -> Audit:
    return Audit(
        holds=run.holds,
        coverage=Coverage(
            mode="full" if checkpoint.is_full else "incremental",
            read_at=checkpoint.verified_at,
            since=run.base.verified_at if run.base else None,
            from_transfer_id=str(checkpoint.from_transfer_id) if checkpoint.from_transfer_id else None,
            to_transfer_id=str(checkpoint.to_transfer_id) if checkpoint.to_transfer_id else None,
            is_verified_point=run.holds and not_saved is None,
            not_kept=not_saved,
        ),
        transfers=run.transfers,
        entries=run.entries,
        wallets=run.wallets,
        sums=[
            Sum(amount_of(currencies, minor, currency), count) for currency, (minor, count) in sorted(run.paid.items())
        ],
        findings=run.findings,
    )
