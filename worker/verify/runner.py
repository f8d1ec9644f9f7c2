"""One audit's questions to one snapshot of the books: of what, in what slices, on which plans.

On PostgreSQL a full audit's questions about everything read the tables and no indexes: a damaged index hides
what it has lost. Slices are found by index; in the end what they held is counted against the tables.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import BigInteger, TextClause, Uuid, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.database.schema import transfers, wallets
from worker.verify.checkpoints import HIGHEST_ID, LOWEST_ID, Checkpoint, highest_id, oldest_late
from worker.verify.invariants import INVARIANTS, WALLET_BALANCE, Invariant, Scope

SLICE_TRANSFERS: Final = 50_000
GAPS_MAX: Final = 1_000
"""How many wallets with entries missing are looked into at once."""

BEGINNINGS_MAX: Final = 5
"""How often an audit begins again further back, before it begins with the first transfer."""

SLICES_PART: Final = 0.5
"""How much of a full audit's time the slices take: measured, for the progress that is told."""

Progress = Callable[[float, str], None]
"""Is told what part is done, from 0 to 1, and which invariant is asked."""


class Finding(msgspec.Struct, frozen=True):
    """An invariant, and the cases in which it was found broken."""

    invariant: str
    promise: str
    broken: int
    """In how many cases it does not hold."""

    cases: list[dict[str, Any]]
    """The first of them, each with the ids that name it and the numbers that don't fit."""


class AuditRun:
    """An audit under way. What it has read and found is in its attributes."""

    def __init__(
        self, connection: AsyncConnection, base: Checkpoint | None, cases_max: int, progress: Progress
    ) -> None:
        """Take a connection in a snapshot, and the point to build on, or None to read everything."""
        self._connection: Final = connection
        self._on_postgresql: Final = connection.dialect.name == "postgresql"
        self._cases_max: Final = cases_max
        self._progress: Final = progress
        self.base: Final = base
        self.first: UUID = LOWEST_ID if base is None else base.next_from
        self.to_transfer_id: UUID | None = None
        self.transfers = self.entries = self.wallets = 0
        self.paid: dict[str, tuple[int, int]] = {}
        """Of each currency: minor units, and the number of transfers."""

        self.findings: list[Finding] = []

    @property
    def holds(self) -> bool:
        """Whether nothing was found broken."""
        return not any(finding.broken for finding in self.findings)

    async def run(self) -> None:
        """Ask everything."""
        self.to_transfer_id = await highest_id(self._connection)
        self.wallets = await self._count(select(func.count()).select_from(wallets))
        await self._set(work_mem="64MB")
        if self.base is not None:
            await self._begin_where_gaps_do()
        await self._set(enable_seqscan="off")
        await self._ask_slices([i for i in INVARIANTS if i.asked is Scope.BY_SLICE])
        # Without bitmaps a search by index stops where it finds; with them it would gather all first.
        await self._set(enable_seqscan="on", enable_bitmapscan="off")
        if self.base is None:
            await self._set(enable_indexscan="off", enable_indexonlyscan="off")
        await self._ask_at_once([i for i in INVARIANTS if i.asked in self._asked_at_once])

    @property
    def _asked_at_once(self) -> tuple[Scope, ...]:
        return (Scope.AT_ONCE,) if self.base is not None else (Scope.AT_ONCE, Scope.IN_FULL)

    async def _begin_where_gaps_do(self) -> None:
        """Move `first` down to the first entry that a wallet has got since the point."""
        for _ in range(BEGINNINGS_MAX):
            rows = await self._rows(WALLET_BALANCE, GAPS_MAX)
            with_gaps = [UUID(str(row["wallet_id"])) for row in rows if row["version"] > row["entries"]]
            if not with_gaps or (late := await oldest_late(self._connection, with_gaps, self.first)) is None:
                return
            self.first = late
        self.first = LOWEST_ID

    async def _ask_slices(self, invariants: list[Invariant]) -> None:
        found = {i.name: Finding(i.name, i.promise, 0, []) for i in invariants}
        to_read = await self._count(_TRANSFERS_FROM, first=self.first)
        async for first, last in self._slices():
            for invariant in invariants:
                self._progress(SLICES_PART * min(1, self.transfers / max(1, to_read)), invariant.name)
                rows = await self._rows(invariant, self._cases_max, first=first, last=last)
                found[invariant.name] = self._joined(found[invariant.name], rows)
            await self._tally(first, last)
        self.findings += found.values()

    async def _ask_at_once(self, invariants: list[Invariant]) -> None:
        for done, invariant in enumerate(invariants):
            self._progress(SLICES_PART + (1 - SLICES_PART) * done / len(invariants), invariant.name)
            rows = await self._rows(invariant, self._cases_max)
            self.findings.append(self._joined(Finding(invariant.name, invariant.promise, 0, []), rows))

    async def _slices(self) -> AsyncIterator[tuple[UUID, UUID]]:
        """Yield the lowest and the highest id of each slice. Together they hold all ids from `first` on."""
        first = self.first
        while True:
            above = (await self._connection.execute(_SLICE_END, {"first": first})).scalar_one_or_none()
            if above is None:
                break
            yield first, UUID(int=above.int - 1)
            first = above
        yield first, HIGHEST_ID

    async def _tally(self, first: UUID, last: UUID) -> None:
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
        # Apart, so that PostgreSQL does not look for the first few cases first, of which there are none.
        apart = "MATERIALIZED" if self._on_postgresql else ""
        return _typed(
            f"WITH b AS {apart} ({cases})"  # noqa: S608
            " SELECT *, COUNT(*) OVER () AS broken_cases FROM b ORDER BY 1, 2 LIMIT :cases_max"
        )

    def _joined(self, finding: Finding, rows: list[Mapping[Any, Any]]) -> Finding:
        broken = finding.broken + (rows[0]["broken_cases"] if rows else 0)
        cases = [*finding.cases, *map(_case, rows)][: self._cases_max]
        return msgspec.structs.replace(finding, broken=broken, cases=cases)

    async def _count(self, statement: Any, **ids: UUID) -> int:
        return int((await self._connection.execute(statement, ids)).scalar_one())

    async def _set(self, **parameters: str) -> None:
        """Set PostgreSQL's parameters for the rest of the transaction."""
        if self._on_postgresql:
            for name, value in parameters.items():
                await self._connection.execute(text(f"SET LOCAL {name} = '{value}'"))


def _typed(statement: str) -> TextClause:
    """Return a statement that knows the types of its parameters."""
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
# In two parts, because SQLite's sums end at 64 bits, and those of all players together need not.
_SUMS: Final = _typed(
    f"SELECT currency, COUNT(*), SUM(amount_minor / {_SPLIT}), SUM(amount_minor % {_SPLIT})"  # noqa: S608
    " FROM transfers WHERE id BETWEEN :first AND :last GROUP BY currency"
)


def _case(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: _told(name, value) for name, value in row.items() if name != "broken_cases"}


def _told(name: str, value: Any) -> Any:
    """Return a value as people and JSON write it: one form of UUIDs and of integers for both databases."""
    if value is None:
        return None
    if name in {"transfer_id", "wallet_id"}:
        return str(UUID(str(value)))
    return value if isinstance(value, str) else int(value)
