"""Stores in each cell's database which integrations the cell serves, so that its workers post no others.

An integration's NAME is part of a win's identity, and each cell's ledger knows only its own wins. If somebody
moved an integration to another cell by editing the settings, repeated wins would be paid there again. So
`migrate`, which reaches the databases of all cells, stores in each the integrations of its cell, unless another
cell has them already. A worker refuses wins of other integrations; they become dead letters, and are not lost.
Each database also has the integrations of the other cells, because the settings may no longer name such a cell.

A ledger without a cell, as where there are no cells, serves every integration.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from sqlalchemy import delete, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.cell_places import MAIN
from shared.cells import naming_cell
from shared.errors import SettingsError
from shared.log_limit import LimitedLog
from shared.operations import AnyOperation
from shared.outcome import Outcome, OutcomeCode
from shared.queries import Query
from worker.database.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database.engine import read_only
from worker.database.faults import outages_as_unavailable
from worker.database.schema import ledger, players, served_integrations
from worker.database.transactions import transaction

_HINT: Final = "run `python -m worker migrate` with the settings of all cells"

PROPAGATION_SECONDS: Final = 3.0
"""How long workers may go on posting other cells' wins after their ledger was assigned to a cell: they read that
within a second, and may then have a batch in progress."""


class Assigned(NamedTuple):
    """The cell and the integrations that a database has stored."""

    cell: str | None
    """The cell of this ledger; None if there are no cells, as far as the database knows."""

    integrations: frozenset[str]

    elsewhere: Mapping[str, str] = {}
    """The integrations that other cells serve, with the cell of each."""


class Assignment:
    """The integrations of a worker's cell, whose wins it may post."""

    def __init__(self, engine: AsyncEngine, cell: str) -> None:
        """Take the engine of the cell's database, and the cell's name in the settings."""
        self._engine: Final = engine
        self._cell: Final = cell
        self._own: frozenset[str] | None = None
        """The integrations of the cell; None if any may be posted."""
        self._elsewhere: Collection[str] = ()
        """The integrations of other cells."""
        self._foreign_log: Final = LimitedLog("integration is not this cell's", "error")

    async def require(self) -> None:
        """Read the assignment. Raises SettingsError if the database is of no cell or of another; LedgerUnavailable."""
        found = await read_assigned(self._engine)
        if found.cell is None and self._cell != MAIN:
            raise SettingsError(f"the database does not know yet that it is cell {self._cell!r}: {_HINT}")
        if found.cell is not None:
            _require_cell(found.cell, self._cell)
        self._apply(found)

    async def refresh(self) -> None:
        """Read the assignment again. Raises LedgerUnavailable."""
        self._apply(await read_assigned(self._engine))

    def _apply(self, found: Assigned) -> None:
        if found.cell in {None, self._cell}:
            self._own = None if found.cell is None else found.integrations
            self._elsewhere = found.elsewhere
        else:
            self._own, self._elsewhere = frozenset(), {*found.integrations, *found.elsewhere}

    def flush_log(self) -> None:
        """Write the log lines that are pending."""
        self._foreign_log.flush()

    def refusals(self, operations: Sequence[AnyOperation]) -> list[Outcome | None] | None:
        """Return for each operation a refusal, or None if it may be posted here. Return None if all may be."""
        own = self._own
        if own is None or all(operation.integration in own for operation in operations):
            return None
        self._log_foreign(Counter(o.integration for o in operations if o.integration not in own))
        return [None if o.integration in own else Outcome(OutcomeCode.UNPOSTABLE) for o in operations]

    def foreign(self, queries: Sequence[Query]) -> frozenset[Query]:
        """Return the queries that only another cell may answer, because its players may have the same ids."""
        if not self._elsewhere:
            return frozenset()
        found = frozenset(query for query in queries if query.integration in self._elsewhere)
        self._log_foreign(Counter(query.integration for query in found))
        return found

    def _log_foreign(self, numbers: Mapping[str, int]) -> None:
        """Log at most a line a second for each integration. Only gateways with our keys can name one: so few occur."""
        for integration, number in numbers.items():
            self._foreign_log.record(integration, number, cell=self._cell, integration=integration, instead=_HINT)


def _require_cell(found: str, cell: str) -> None:
    if found != cell:
        with naming_cell(cell):
            raise SettingsError(f"[ledger] database_url: is the database of cell {found!r}")


async def read_assigned(engine: AsyncEngine) -> Assigned:
    """Return the cell and the integrations that a database has stored. Raises LedgerUnavailable."""
    with outages_as_unavailable():
        async with read_only(engine).connect() as connection:
            cell = (await connection.execute(select(ledger.c.cell))).scalar_one_or_none()
            if cell is None:
                return Assigned(None, frozenset())
            served = await connection.execute(select(served_integrations.c.integration, served_integrations.c.cell))
            cell_of = {row.integration: row.cell for row in served}
            own = frozenset(name for name, other in cell_of.items() if other is None)
            return Assigned(cell, own, {name: other for name, other in cell_of.items() if other is not None})


async def find_other_cell(engine: AsyncEngine, integration: str) -> str | None:
    """Return the other cell that serves an integration, according to this database. Raises LedgerUnavailable."""
    return (await read_assigned(engine)).elsewhere.get(integration)


async def find_posted(engine: AsyncEngine) -> frozenset[str]:
    """Return the integrations that have transfers, by one search in the unique index for each.

    Raises LedgerUnavailable.
    """
    with outages_as_unavailable():
        async with read_only(engine).connect() as connection:
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
    """Store which integrations each cell serves: those of `wanted`, and those of which it has paid wins.

    Returns the new ones by cell. Raises SettingsError, and stores nothing, if an integration is wanted in one
    cell and another cell's database has it; LedgerUnavailable.
    """
    known = {cell: await read_assigned(engine) for cell, engine in engines.items()}
    for cell, found in known.items():
        _require_cell(found.cell or cell, cell)
    posted = {cell: await find_posted(engine) for cell, engine in engines.items()}
    _require_disjoint(wanted, known, posted)
    new = {cell: sorted({*wanted.get(cell, ()), *posted[cell]} - known[cell].integrations) for cell in engines}
    served = {cell: known[cell].integrations.union(new[cell]) for cell in engines}
    was_unassigned = MAIN in known and known[MAIN].cell is None
    for cell in sorted(engines, key=lambda cell: cell != MAIN):
        elsewhere = {name: other for other in engines if other != cell for name in served[other]}
        elsewhere = {name: other for name, other in elsewhere.items() if name not in served[cell]}
        is_known = known[cell].cell is not None and elsewhere.items() <= known[cell].elsewhere.items()
        if new[cell] or not is_known:
            await _write(engines[cell], cell, known[cell], new[cell], elsewhere, by)
        if cell == MAIN and was_unassigned and any(new[other] for other in engines if other != cell):
            await _require_unpaid(engines[cell], wanted, known, posted)
    return new


async def _require_unpaid(
    main: AsyncEngine,
    wanted: Mapping[str, Collection[str]],
    known: Mapping[str, Assigned],
    posted: Mapping[str, frozenset[str]],
) -> None:
    """Check again which wins the main ledger has paid, which has served every integration until now.

    Its workers may go on doing so for PROPAGATION_SECONDS. Raises SettingsError and LedgerUnavailable.
    """
    with outages_as_unavailable():
        async with read_only(main).connect() as connection:
            if (await connection.execute(select(players.c.id).limit(1))).first() is None:
                return  # without players, no win can have been paid
    await asyncio.sleep(PROPAGATION_SECONDS)
    _require_disjoint(wanted, known, {**posted, MAIN: await find_posted(main)})


def _require_disjoint(
    wanted: Mapping[str, Collection[str]],
    known: Mapping[str, Assigned],
    posted: Mapping[str, frozenset[str]],
) -> None:
    for cell, names in wanted.items():
        for name in names:
            _require_in_no_other_cell(name, cell, known, posted)


def _require_in_no_other_cell(
    name: str, cell: str, known: Mapping[str, Assigned], posted: Mapping[str, frozenset[str]]
) -> None:
    for other, found in known.items():
        if (owner := found.elsewhere.get(name, cell)) != cell and owner not in known:
            raise SettingsError(
                f"[integrations.{name}] cell: cell {owner!r} has served it, which these settings don't have,"
                f" and {cell!r} would pay its wins again; give it another NAME there"
            )
        if other == cell:
            continue
        if name in posted[other]:
            raise SettingsError(
                f"[integrations.{name}] cell: cell {other!r} has paid wins of it, and {cell!r} would pay them"
                " again; give it another NAME there"
            )
        if name in found.integrations:
            raise SettingsError(f"[integrations.{name}] cell: cell {other!r} serves it; see docs/operations/cells.md")


async def _write(  # noqa: PLR0913, PLR0917  (the present state, and the new one)
    engine: AsyncEngine,
    cell: str,
    known: Assigned,
    new: Sequence[str],
    elsewhere: Mapping[str, str],
    by: Actor,
) -> None:
    """Store the cell of a ledger, its new integrations, and those of other cells.

    Raises SettingsError if another process has stored something else since `known` was read.
    """
    table, now = served_integrations, datetime.now(UTC)
    rows = [{"integration": name, "since": now, "cell": None} for name in new]
    rows += [{"integration": name, "since": now, "cell": other} for name, other in elsewhere.items()]
    outdated = [name for name in known.elsewhere if name in new or name in elsewhere]
    is_ours = or_(ledger.c.cell.is_(None), ledger.c.cell == cell)
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            if not (await connection.execute(update(ledger).where(is_ours).values(cell=cell))).rowcount:
                _require_cell((await connection.execute(select(ledger.c.cell))).scalar_one(), cell)
            await connection.execute(delete(table).where(table.c.cell.is_not(None), table.c.integration.in_(outdated)))
            try:
                if rows:
                    await connection.execute(insert(table), rows)
            except IntegrityError:
                raise SettingsError(f"cell {cell!r}: somebody else assigns integrations; try again") from None
            detail = {"cell": cell, "new": new, "elsewhere": elsewhere}
            await record(connection, by, Action.ASSIGN, LEDGER, "assigned", detail)
