"""The audit of the books: every invariant, asked of the database, on one snapshot, while credits go on.

On PostgreSQL the plans read the tables and no indexes: a damaged index hides what it has lost.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.money import Currencies
from worker.database import outages_as_unavailable, snapshot
from worker.invariants import INVARIANTS, Invariant
from worker.reading import Amount, amount_of

CASES_MAX: Final = 20
"""How many cases of one broken invariant are told; the others are counted."""


class Finding(msgspec.Struct, frozen=True):
    """An invariant, and the cases in which it was found broken."""

    invariant: str
    promise: str
    broken: int
    """In how many cases it does not hold."""

    cases: list[dict[str, Any]]
    """The first of them, each with the ids that name it and the numbers that don't fit."""


class Sum(msgspec.Struct, frozen=True):
    """What was paid in one currency."""

    paid: Amount
    transfers: int


class Audit(msgspec.Struct, frozen=True):
    """What the books hold, and whether everything in them holds."""

    holds: bool
    transfers: int
    entries: int
    wallets: int
    sums: list[Sum]
    findings: list[Finding]
    """One for each invariant, in the order of INVARIANTS."""


async def verify(engine: AsyncEngine, currencies: Currencies, cases_max: int = CASES_MAX) -> Audit:
    """Audit the whole books as they are at this moment. Takes time with their size: use a patient engine.

    Raises LedgerUnavailable.
    """
    with outages_as_unavailable():
        async with snapshot(engine) as connection:
            if engine.dialect.name == "postgresql":
                for statement in _READ_TABLES_NOT_INDEXES:
                    await connection.execute(statement)
            findings = [await _look(connection, invariant, cases_max) for invariant in INVARIANTS]
            sums = [
                Sum(amount_of(currencies, int(high) * _SPLIT + int(low), currency), transfers)
                for currency, transfers, high, low in await connection.execute(_SUMS)
            ]
            entries, wallets = (await connection.execute(_COUNTS)).one()
    return Audit(
        holds=not any(finding.broken for finding in findings),
        transfers=sum(s.transfers for s in sums),
        entries=entries,
        wallets=wallets,
        sums=sums,
        findings=findings,
    )


_READ_TABLES_NOT_INDEXES: Final = tuple(
    text(f"SET LOCAL enable_{scan} = off") for scan in ("indexscan", "indexonlyscan", "bitmapscan")
)

_SPLIT: Final = 10**9
# In two parts, because SQLite's sums end at 64 bits, and those of all players together need not.
_SUMS: Final = text(
    f"SELECT currency, COUNT(*), SUM(amount_minor / {_SPLIT}), SUM(amount_minor % {_SPLIT})"  # noqa: S608
    " FROM transfers GROUP BY currency ORDER BY currency"
)
_COUNTS: Final = text("SELECT (SELECT COUNT(*) FROM entries), (SELECT COUNT(*) FROM wallets)")


async def _look(connection: AsyncConnection, invariant: Invariant, cases_max: int) -> Finding:
    found = await connection.execute(_first_cases(invariant), {"cases_max": cases_max})
    rows = found.mappings().all()
    broken = rows[0]["broken_cases"] if rows else 0
    return Finding(invariant.name, invariant.promise, broken, [_case(row) for row in rows])


def _first_cases(invariant: Invariant) -> TextClause:
    return text(
        f"SELECT *, COUNT(*) OVER () AS broken_cases FROM ({invariant.broken_cases}) AS b"  # noqa: S608
        " ORDER BY 1, 2 LIMIT :cases_max"
    )


def _case(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {name: _told(name, value) for name, value in row.items() if name != "broken_cases"}


def _told(name: str, value: Any) -> Any:
    """Return a value as people and JSON write it: one form of UUIDs and of integers for both databases."""
    if value is None:
        return None
    if name.endswith("_minor"):
        return int(value)
    if name in {"transfer_id", "wallet_id"}:
        return str(UUID(str(value)))
    return value
