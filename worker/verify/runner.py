"""An audit run executes the queries of one audit on one snapshot: in which slices, and with which query plans.

On PostgreSQL the queries of a full audit that read everything use no indexes, because a damaged index hides the
rows that it has lost. The slices are found by index, so at the end the number of their rows is compared with
the number of rows in the tables.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, TextClause, Uuid, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.database.schema import transfers, wallets
from worker.verify.checkpoints import HIGHEST_ID, LOWEST_ID, Checkpoint, highest_transfer_id, lowest_missed_id
from worker.verify.invariants import INVARIANTS, WALLET_BALANCE, Invariant, Scope

SLICE_TRANSFERS: Final = 50_000
GAPS_MAX: Final = 1_000
"""The most wallets with missing entries that one query handles."""

RESTARTS_MAX: Final = 5
"""How often the start of an audit is moved back; then it is moved to the first transfer."""

SLICES_SHARE: Final = 0.5
"""The share of a full audit's time that the slices take, as measured; used to report progress."""

Progress = Callable[[float, str], None]
"""Takes the share of the audit that is done, from 0 to 1, and the name of the invariant that is being checked."""


class Finding(msgspec.Struct, frozen=True):
    """An invariant, and the cases that break it."""

    invariant: str
    description: str = msgspec.field(name="promise")
    broken: int
    """The number of cases that break it."""

    cases: list[dict[str, Any]]
    """The first of those cases, each with the ids that identify it and the numbers that don't match."""


class AuditRun:
    """An audit in progress; its attributes hold what it has read and found so far."""

    def __init__(
        self, connection: AsyncConnection, base: Checkpoint | None, cases_max: int, progress: Progress
    ) -> None:
        """Take a connection within a snapshot, and the checkpoint to start from, or None to read everything."""
        self._connection: Final = connection
        self._on_postgresql: Final = connection.dialect.name == "postgresql"
        self._cases_max: Final = cases_max
        self._progress: Final = progress
        self.base: Final = base
        self.first: UUID = LOWEST_ID if base is None else base.next_from
        self.to_transfer_id: UUID | None = None
        self.transfers = self.entries = self.wallets = 0
        self.paid: dict[str, tuple[int, int]] = {}
        """The amount in minor units and the number of transfers, by currency."""

        self.findings: list[Finding] = []

    @property
    def holds(self) -> bool:
        """Whether every invariant holds."""
        return not any(finding.broken for finding in self.findings)

    async def run(self) -> None:
        """Check every invariant."""
        self.to_transfer_id = await highest_transfer_id(self._connection)
        self.wallets = await self._count(select(func.count()).select_from(wallets))
        await self._set(work_mem="64MB")
        if self.base is not None:
            await self._move_start_before_gaps()
        await self._set(enable_seqscan="off")
        await self._check_by_slice([i for i in INVARIANTS if i.scope is Scope.BY_SLICE])
        # With bitmap scans, a search that needs only the first match would collect all matches first.
        await self._set(enable_seqscan="on", enable_bitmapscan="off")
        scopes = {Scope.AT_ONCE}
        if self.base is None:
            await self._set(enable_indexscan="off", enable_indexonlyscan="off")
            scopes.add(Scope.IN_FULL)
        await self._check_at_once([i for i in INVARIANTS if i.scope in scopes])

    async def _move_start_before_gaps(self) -> None:
        """Move `first` back to the first transfer whose entries a wallet got since the point."""
        for _ in range(RESTARTS_MAX):
            rows = await self._rows(WALLET_BALANCE, GAPS_MAX)
            with_gaps = [UUID(str(row["wallet_id"])) for row in rows if row["version"] > row["entries"]]
            if not with_gaps or (missed := await lowest_missed_id(self._connection, with_gaps, self.first)) is None:
                return
            self.first = missed
        self.first = LOWEST_ID

    async def _check_by_slice(self, invariants: list[Invariant]) -> None:
        found = {i.name: Finding(i.name, i.description, 0, []) for i in invariants}
        to_read = await self._count(_TRANSFERS_FROM, first=self.first)
        async for first, last in self._slices():
            for invariant in invariants:
                self._progress(SLICES_SHARE * min(1, self.transfers / max(1, to_read)), invariant.name)
                rows = await self._rows(invariant, self._cases_max, first=first, last=last)
                found[invariant.name] = self._extended(found[invariant.name], rows)
            await self._add_totals(first, last)
        self.findings += found.values()

    async def _check_at_once(self, invariants: list[Invariant]) -> None:
        for done, invariant in enumerate(invariants):
            self._progress(SLICES_SHARE + (1 - SLICES_SHARE) * done / len(invariants), invariant.name)
            rows = await self._rows(invariant, self._cases_max)
            self.findings.append(self._extended(Finding(invariant.name, invariant.description, 0, []), rows))

    async def _slices(self) -> AsyncIterator[tuple[UUID, UUID]]:
        """Yield the lowest and the highest id of each slice. Together the slices cover all ids from `first` on."""
        first = self.first
        while True:
            above = (await self._connection.execute(_SLICE_END, {"first": first})).scalar_one_or_none()
            if above is None:
                break
            yield first, UUID(int=above.int - 1)
            first = above
        yield first, HIGHEST_ID

    async def _add_totals(self, first: UUID, last: UUID) -> None:
        ids = {"first": first, "last": last}
        self.entries += await self._count(_ENTRIES_BETWEEN, **ids)
        for currency, count, high, low in await self._connection.execute(_SUMS, ids):
            minor, transfers_ = self.paid.get(currency, (0, 0))
            self.paid[currency] = minor + int(high) * _SPLIT + int(low), transfers_ + count
            self.transfers += count

    async def _rows(self, invariant: Invariant, cases_max: int, **ids: UUID) -> list[Mapping[Any, Any]]:
        parameters = {
            "first": self.first,
            "verified_to": (self.base and self.base.to_transfer_id) or LOWEST_ID,
            "transfers": self.transfers,
            "entries": self.entries,
            "cases_max": cases_max,
            **ids,
        }
        found = await self._connection.execute(self._statement(invariant), parameters)
        return list(found.mappings())

    def _statement(self, invariant: Invariant) -> TextClause:
        cases = invariant.broken_cases
        if self.base is not None and invariant.broken_cases_since is not None:
            cases = invariant.broken_cases_since
        nothing = "(SELECT * FROM verified_wallets WHERE 1 = 0)"
        cases = cases.replace("<verified>", nothing if self.base is None else "verified_wallets")
        # Else the LIMIT makes PostgreSQL plan for finding the first few cases soon, when nearly always none exist.
        materialized = "MATERIALIZED" if self._on_postgresql else ""
        return _typed(
            f"WITH b AS {materialized} ({cases})"  # noqa: S608
            " SELECT *, COUNT(*) OVER () AS broken_cases FROM b ORDER BY 1, 2 LIMIT :cases_max"
        )

    def _extended(self, finding: Finding, rows: list[Mapping[Any, Any]]) -> Finding:
        """Return a finding with the further cases that a query found."""
        broken = finding.broken + (rows[0]["broken_cases"] if rows else 0)
        cases = [*finding.cases, *map(_case, rows)][: self._cases_max]
        return msgspec.structs.replace(finding, broken=broken, cases=cases)

    async def _count(self, statement: Any, **ids: UUID) -> int:
        return int((await self._connection.execute(statement, ids)).scalar_one())

    async def _set(self, **parameters: str) -> None:
        """Set parameters of PostgreSQL for the rest of the transaction."""
        if self._on_postgresql:
            for name, value in parameters.items():
                await self._connection.execute(text(f"SET LOCAL {name} = '{value}'"))


def _typed(statement: str) -> TextClause:
    """Return a statement whose parameters have types."""
    used = [(name, type_) for name, type_ in _TYPES.items() if f":{name}" in statement]
    return text(statement).bindparams(*(bindparam(name, type_=type_) for name, type_ in used))


_TYPES: Final = {
    "first": Uuid,
    "last": Uuid,
    "verified_to": Uuid,
    "transfers": BigInteger,
    "entries": BigInteger,
}
_TRANSFERS_FROM: Final = (
    select(func.count()).select_from(transfers).where(transfers.c.id >= bindparam("first", type_=Uuid))
)
_ENTRIES_BETWEEN: Final = _typed("SELECT COUNT(*) FROM entries WHERE transfer_id BETWEEN :first AND :last")
_SLICE_END: Final = (
    select(transfers.c.id)
    .where(transfers.c.id > bindparam("first", type_=Uuid))
    .order_by(transfers.c.id)
    .offset(SLICE_TRANSFERS - 1)
    .limit(1)
)
_SPLIT: Final = 10**9
# Sums of the high and the low digits, because SQLite's sums are limited to 64 bits, which all players may exceed.
_SUMS: Final = _typed(
    f"SELECT currency, COUNT(*), SUM(amount_minor / {_SPLIT}), SUM(amount_minor % {_SPLIT})"  # noqa: S608
    " FROM transfers WHERE id BETWEEN :first AND :last GROUP BY currency"
)


def _case(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: _json_value(name, value) for name, value in row.items() if name != "broken_cases"}


def _json_value(name: str, value: Any) -> Any:
    """Return a value for JSON: UUIDs and integers have one form, whichever the database."""
    if value is None:
        return None
    if name in {"transfer_id", "wallet_id"}:
        return str(UUID(str(value)))
    return value if isinstance(value, str) else int(value)
