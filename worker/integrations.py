"""Which integrations the books of a cell serve, as the database itself remembers it.

An integration's NAME is part of a win's identity, and each cell's books know only their own wins: an
integration that is moved to another cell by editing the settings would be paid there again, whatever it
repeats. So `migrate`, which reaches the databases of all cells, writes down in each which integrations are
its own, unless another cell has them already; and a worker of a cell posts no others. What it refuses is put
aside and not lost. Each database remembers the integrations of the other cells, too: the settings may name
such a cell no more.

Books that belong to no cell, because there are none, serve whatever comes.
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

FOLLOWED_SECONDS: Final = 3.0
"""After so long no worker posts any more what it might before its books became a cell's: it reads that within
a second, and then may have a batch under way."""


class Assigned(NamedTuple):
    """What a database says of its cell."""

    cell: str | None
    """None: there are no cells, as far as it knows."""

    integrations: frozenset[str]

    elsewhere: Mapping[str, str] = {}
    """Integrations that other cells serve, with the cell of each."""


class Assignment:
    """The integrations of one cell, for a worker: what it may post."""

    def __init__(self, engine: AsyncEngine, cell: str) -> None:
        """Take the cell's database, and the name that the settings give the cell."""
        self._engine: Final = engine
        self._cell: Final = cell
        self._own: frozenset[str] | None = None
        """None: any."""
        self._elsewhere: Collection[str] = ()
        """What another cell serves."""
        self._foreign_log: Final = LimitedLog("integration is not this cell's", "error")

    async def require(self) -> None:
        """Read it. Raises SettingsError if the database is no cell's yet, or another's; LedgerUnavailable."""
        found = await read_assigned(self._engine)
        if found.cell is None and self._cell != MAIN:
            raise SettingsError(f"the database does not know yet that it is cell {self._cell!r}: {_HINT}")
        if found.cell is not None:
            _require_cell(found.cell, self._cell)
        self._take(found)

    async def refresh(self) -> None:
        """Read it again. Raises LedgerUnavailable."""
        self._take(await read_assigned(self._engine))

    def _take(self, found: Assigned) -> None:
        if found.cell in {None, self._cell}:
            self._own = None if found.cell is None else found.integrations
            self._elsewhere = found.elsewhere
        else:
            self._own, self._elsewhere = frozenset(), {*found.integrations, *found.elsewhere}

    def flush_log(self) -> None:
        """Log what has not been."""
        self._foreign_log.flush()

    def refusals(self, operations: Sequence[AnyOperation]) -> list[Outcome | None] | None:
        """Return an outcome for each operation that is not to be posted here; None where all may be."""
        own = self._own
        if own is None or all(operation.integration in own for operation in operations):
            return None
        self._log_foreign(Counter(o.integration for o in operations if o.integration not in own))
        return [None if o.integration in own else Outcome(OutcomeCode.UNPOSTABLE) for o in operations]

    def foreign(self, queries: Sequence[Query]) -> frozenset[Query]:
        """Return the queries that another cell is to answer: its players may have the same ids."""
        if not self._elsewhere:
            return frozenset()
        found = frozenset(query for query in queries if query.integration in self._elsewhere)
        self._log_foreign(Counter(query.integration for query in found))
        return found

    def _log_foreign(self, numbers: Mapping[str, int]) -> None:
        """Log a line a second for each integration, of which the gateways that have our keys know few."""
        for integration, number in numbers.items():
            self._foreign_log.record(integration, number, cell=self._cell, integration=integration, instead=_HINT)


def _require_cell(found: str, cell: str) -> None:
    if found != cell:
        with naming_cell(cell):
            raise SettingsError(f"[ledger] database_url: is the database of cell {found!r}")


async def read_assigned(engine: AsyncEngine) -> Assigned:
    """Return what a database says. Raises LedgerUnavailable."""
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
    """Return the other cell that serves an integration, as the books know. Raises LedgerUnavailable."""
    return (await read_assigned(engine)).elsewhere.get(integration)


async def find_posted(engine: AsyncEngine) -> frozenset[str]:
    """Return the integrations that have transfers, by a walk over the unique index, a step for each.

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
    """Write down which integrations each cell serves: those wanted, and those that it has paid wins of.

    Returns those that are new, by cell. Raises SettingsError, and writes nothing, when an integration is
    wanted in one cell and another's books have it; LedgerUnavailable.
    """
    known = {cell: await read_assigned(engine) for cell, engine in engines.items()}
    for cell, found in known.items():
        _require_cell(found.cell or cell, cell)
    posted = {cell: await find_posted(engine) for cell, engine in engines.items()}
    _require_apart(wanted, known, posted)
    new = {cell: sorted({*wanted.get(cell, ()), *posted[cell]} - known[cell].integrations) for cell in engines}
    served = {cell: known[cell].integrations.union(new[cell]) for cell in engines}
    was_open = MAIN in known and known[MAIN].cell is None
    for cell in sorted(engines, key=lambda cell: cell != MAIN):
        elsewhere = {name: other for other in engines if other != cell for name in served[other]}
        elsewhere = {name: other for name, other in elsewhere.items() if name not in served[cell]}
        is_known = known[cell].cell is not None and elsewhere.items() <= known[cell].elsewhere.items()
        if new[cell] or not is_known:
            await _write(engines[cell], cell, known[cell], new[cell], elsewhere, by)
        if cell == MAIN and was_open and any(new[other] for other in engines if other != cell):
            await _require_unpaid(engines[cell], wanted, known, posted)
    return new


async def _require_unpaid(
    main: AsyncEngine,
    wanted: Mapping[str, Collection[str]],
    known: Mapping[str, Assigned],
    posted: Mapping[str, frozenset[str]],
) -> None:
    """Look again at what was posted in the books that served whatever came until now.

    Their workers go on with that for a moment. Raises SettingsError and LedgerUnavailable.
    """
    with outages_as_unavailable():
        async with read_only(main).connect() as connection:
            if (await connection.execute(select(players.c.id).limit(1))).first() is None:
                return  # there was nobody to be paid
    await asyncio.sleep(FOLLOWED_SECONDS)
    _require_apart(wanted, known, {**posted, MAIN: await find_posted(main)})


def _require_apart(
    wanted: Mapping[str, Collection[str]],
    known: Mapping[str, Assigned],
    posted: Mapping[str, frozenset[str]],
) -> None:
    for cell, names in wanted.items():
        for name in names:
            _require_nowhere_else(name, cell, known, posted)


def _require_nowhere_else(
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


async def _write(  # noqa: PLR0913, PLR0917  (what there is, and what is to be)
    engine: AsyncEngine,
    cell: str,
    known: Assigned,
    new: Sequence[str],
    elsewhere: Mapping[str, str],
    by: Actor,
) -> None:
    """Write down that the books are a cell's, what is new there, and what other cells serve.

    Raises SettingsError if somebody has written otherwise since `known` was read.
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
