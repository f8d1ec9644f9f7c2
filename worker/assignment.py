"""Which integrations the books of a cell serve, as the database itself remembers it.

An integration's NAME is part of a win's identity, and each cell's books know only their own wins: an
integration that is moved to another cell by editing the settings would be paid there again, whatever it
repeats. So `migrate`, which reaches the databases of all cells, writes down in each which integrations are
its own, unless another cell has them already; and a worker of a cell posts no others. What it refuses is put
aside and not lost.

Books that belong to no cell, because there are none, serve whatever comes.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

import structlog
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.cell_places import MAIN
from shared.credit import Credit
from shared.errors import SettingsError
from shared.outcome import Outcome, Result
from worker.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database import for_reading, outages_as_unavailable
from worker.schema import ledger, served_integrations
from worker.transactions import transaction

_HINT: Final = "run `python -m worker migrate` with the settings of all cells"

_log = structlog.get_logger()


class Assigned(NamedTuple):
    """What a database says of its cell."""

    cell: str | None
    """None: there are no cells, as far as it knows."""

    integrations: frozenset[str]


class Assignment:
    """The integrations of one cell, for a worker: what it may post."""

    def __init__(self, engine: AsyncEngine, cell: str) -> None:
        """Take the cell's database, and the name that the settings give the cell."""
        self._engine: Final = engine
        self._cell: Final = cell
        self._own: frozenset[str] | None = None
        """None: any."""

    async def require(self) -> None:
        """Read it. Raises SettingsError if the database is no cell's yet, or another's; LedgerUnavailable."""
        found = await read_assigned(self._engine)
        if found.cell is None and self._cell != MAIN:
            raise SettingsError(f"the database does not know yet that it is cell {self._cell!r}: {_HINT}")
        if found.cell is not None:
            _require_cell(found.cell, self._cell)
        self._own = _own(found)

    async def refresh(self) -> None:
        """Read it again. Raises LedgerUnavailable."""
        found = await read_assigned(self._engine)
        self._own = _own(found) if found.cell in {None, self._cell} else frozenset()

    def refusals(self, credits_: Sequence[Credit]) -> list[Outcome | None] | None:
        """Return an outcome for each credit that is not to be posted here; None where all may be."""
        own = self._own
        if own is None or all(credit.integration in own for credit in credits_):
            return None
        foreign = sorted({credit.integration for credit in credits_} - own)
        _log.error("integration is not this cell's", cell=self._cell, integrations=foreign, instead=_HINT)
        return [None if c.integration in own else Outcome(Result.UNPOSTABLE) for c in credits_]


def _own(found: Assigned) -> frozenset[str] | None:
    return None if found.cell is None else found.integrations


def _require_cell(found: str, cell: str) -> None:
    if found != cell:
        raise SettingsError(f"[ledger] database_url: is the database of cell {found!r}")


async def read_assigned(engine: AsyncEngine) -> Assigned:
    """Return what a database says. Raises LedgerUnavailable."""
    with outages_as_unavailable():
        async with for_reading(engine).connect() as connection:
            cell = (await connection.execute(select(ledger.c.cell))).scalar_one_or_none()
            if cell is None:
                return Assigned(None, frozenset())
            own = await connection.execute(select(served_integrations.c.integration))
            return Assigned(cell, frozenset(own.scalars()))


async def find_posted(engine: AsyncEngine) -> frozenset[str]:
    """Return the integrations that have transfers, by a walk over the unique index, a step for each.

    Raises LedgerUnavailable.
    """
    with outages_as_unavailable():
        async with for_reading(engine).connect() as connection:
            return frozenset((await connection.execute(_POSTED)).scalars())


_POSTED: Final = text(
    "WITH RECURSIVE found (integration) AS ("
    " SELECT (SELECT MIN(integration) FROM transfers)"
    " UNION ALL"
    " SELECT (SELECT MIN(t.integration) FROM transfers t WHERE t.integration > found.integration)"
    " FROM found WHERE found.integration IS NOT NULL"
    ") SELECT integration FROM found WHERE integration IS NOT NULL"
)


async def assign(
    engines: Mapping[str, AsyncEngine], wanted: Mapping[str, Collection[str]], *, by: Actor = PROCESS
) -> dict[str, list[str]]:
    """Write down which integrations each cell serves: those wanted, and those that it has paid wins of.

    Returns those that are new, by cell. Raises SettingsError, and writes nothing, when an integration is
    wanted in one cell and another's books have it; LedgerUnavailable.
    """
    known = {cell: await read_assigned(engine) for cell, engine in engines.items()}
    posted = {cell: await find_posted(engine) for cell, engine in engines.items()}
    for cell, found in known.items():
        _require_cell(found.cell or cell, cell)
    for cell, names in wanted.items():
        for name in names:
            _require_nowhere_else(name, cell, known, posted)
    new = {
        cell: sorted({*wanted.get(cell, ()), *posted[cell]} - known[cell].integrations) for cell in engines
    }
    for cell, engine in engines.items():
        if new[cell] or known[cell].cell is None:
            await _write(engine, cell, new[cell], by)
    return new


def _require_nowhere_else(
    name: str, cell: str, known: Mapping[str, Assigned], posted: Mapping[str, frozenset[str]]
) -> None:
    for other in known:
        if other == cell:
            continue
        if name in posted[other]:
            raise SettingsError(
                f"[integrations.{name}] cell: cell {other!r} has paid wins of it, and {cell!r} would pay them"
                " again; give it another NAME there"
            )
        if name in known[other].integrations:
            raise SettingsError(
                f"[integrations.{name}] cell: cell {other!r} serves it; see docs/operations/cells.md"
            )


async def _write(engine: AsyncEngine, cell: str, new: Sequence[str], by: Actor) -> None:
    rows = [{"integration": name, "since": datetime.now(UTC)} for name in new]
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            await connection.execute(update(ledger).values(cell=cell))
            if rows:
                await connection.execute(insert(served_integrations), rows)
            await record(connection, by, Action.ASSIGN, LEDGER, "assigned", {"cell": cell, "new": new})
