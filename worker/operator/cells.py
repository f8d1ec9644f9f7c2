"""The databases of all cells: searches them, and selects the one that a request changes.

A read searches all cells at once. If it finds nothing and a cell did not answer, the reply is 503, never 404: that
cell may have it. A change must name its cell if there are several.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.cell_places import CELL_NAME
from shared.cells import Part, cell_of, cells_of, naming_cell, settings_of
from shared.errors import LedgerUnavailable, SettingsError
from shared.readiness import Probe
from shared.settings import Settings
from worker.database.engine import create_engine
from worker.database.migrate import require_migrated
from worker.integrations import find_other_cell
from worker.ledger.transaction import Ledger
from worker.operator.problems import RETRY_SECONDS, Code, ProblemError

OTHERS_SECONDS_MAX: Final = 1.0
"""How long a search waits for the other cells once it has found a thing that is unique over cells."""

_RETRY_HEADERS: Final = {"Retry-After": str(RETRY_SECONDS)}

_log: Final = structlog.get_logger()

T = TypeVar("T")


class Found(NamedTuple, Generic[T]):
    """A query's answer, and the name of the cell that gave it. The name is None if there is only one cell."""

    answer: T
    cell: str | None


class CellEngine(NamedTuple):
    """The database of one cell, and the cell's name. The name is None if there is only one cell."""

    engine: AsyncEngine
    cell: str | None


class Cells:
    """The databases of all cells, with an engine for each."""

    def __init__(self, settings: Settings) -> None:
        """Create the engines. Raises SettingsError."""
        self._settings: Final = settings
        self._engines: Final[dict[str, AsyncEngine]] = {}
        for name in cells_of(settings):
            with naming_cell(name):
                self._engines[name] = create_engine(settings_of(settings, name, Part.LEDGER).ledger)

    @property
    def default(self) -> AsyncEngine:
        """The database of the first cell. Its audit log records the attempts that a user's role does not allow."""
        return next(iter(self._engines.values()))

    @property
    def probes(self) -> Mapping[str, Probe]:
        """The readiness probe of each cell's database."""
        return {name: _probe_of(engine) for name, engine in self._engines.items()}

    async def require_migrated(self) -> None:
        """Raise SettingsError if tables are of another version, and LedgerUnavailable if no cell's database answers."""
        names = list(self._engines)
        faults = await asyncio.gather(*map(self._require_migrated, names))
        if (first := faults[0]) is not None and all(faults):
            raise first
        for name, fault in zip(names, faults, strict=True):
            if fault is not None:
                _log.warning("no answer from the books", cell=name, reason=str(fault))

    async def _require_migrated(self, name: str) -> LedgerUnavailable | None:
        try:
            with naming_cell(name):
                await require_migrated(self._engines[name])
        except SettingsError as error:
            raise SettingsError(f"cell {name}: {error}" if len(self._engines) > 1 else str(error)) from error
        except LedgerUnavailable as error:
            return error
        return None

    async def dispose(self) -> None:
        """Close the connections of all engines."""
        await asyncio.gather(*(engine.dispose() for engine in self._engines.values()))

    def select_one(self, cell: str | None, integration: str | None = None) -> CellEngine:
        """Return the database of one cell: the named one, the integration's, or the only one.

        Raises ProblemError.
        """
        serving_cell = None
        if integration is not None and integration in self._settings.integrations:
            serving_cell = cell_of(self._settings, integration)
            if cell is not None and cell != serving_cell:
                detail = f"cell: {integration!r} is an integration of cell {serving_cell!r}"
                raise ProblemError(Code.INVALID_QUERY, detail)
        ((name, engine), *others) = self._engines_of(serving_cell if cell is None else cell).items()
        if others:
            known = ", ".join(self._engines)
            raise ProblemError(Code.SEVERAL_CELLS, f"there are several cells; name one with ?cell=, of {known}")
        return CellEngine(engine, self._label(name))

    async def search(
        self,
        cell: str | None,
        query: Callable[[AsyncEngine], Awaitable[T | None]],
        *,
        is_unique: bool = True,
    ) -> Found[T] | None:
        """Run `query` in the named cell, or in all cells, and return the only answer that is not None.

        Returns None if no cell has one. A thing that is unique over cells needs no answer from the others once it
        is found. Raises ProblemError if several cells have an answer, or if a cell that may have one did not
        answer; and raises what `query` raises.
        """
        tasks = {name: asyncio.ensure_future(query(engine)) for name, engine in self._engines_of(cell).items()}
        if len(tasks) == 1:
            ((name, only),) = tasks.items()
            answer = await only
            return None if answer is None else Found(answer, self._label(name))
        await _wait_for_answers(tasks.values(), is_unique=is_unique)
        faults = {name: fault for name, task in tasks.items() if (fault := _fault_of(task)) is not None}
        answers = {name: task.result() for name, task in tasks.items() if name not in faults}
        found = {name: answer for name, answer in answers.items() if answer is not None}
        if len(found) > 1:
            detail = f"cells {', '.join(found)} have it; name one with ?cell="
            raise ProblemError(Code.SEVERAL_CELLS, detail)
        for name, fault in faults.items():
            _log.warning("no answer from the books", cell=name, reason=fault)
        if faults and not (found and is_unique):
            detail = f"incomplete: cell {', '.join(faults)} gave no answer; ask again, or another with ?cell="
            raise ProblemError(Code.UNAVAILABLE, detail, _RETRY_HEADERS)
        return next((Found(answer, name) for name, answer in found.items()), None)

    async def refuse_if_served_elsewhere(self, cell: str | None, integration: str) -> None:
        """Raise ProblemError if a searched database says that a cell not searched serves the integration.

        A thing that was not found may be in that cell then, which the settings may no longer name. Raises
        LedgerUnavailable.
        """
        searched = self._engines_of(cell)
        others = await asyncio.gather(*(find_other_cell(engine, integration) for engine in searched.values()))
        if not_searched := sorted({other for other in others if other is not None} - searched.keys()):
            detail = f"not known here: cell {not_searched[0]} serves {integration!r}, and was not asked"
            raise ProblemError(Code.UNAVAILABLE, detail, _RETRY_HEADERS)

    def _engines_of(self, cell: str | None) -> Mapping[str, AsyncEngine]:
        if cell is None:
            return self._engines
        if re.fullmatch(CELL_NAME, cell) is None:
            raise ProblemError(Code.INVALID_QUERY, f"cell: a name has the form {CELL_NAME}")
        if cell not in self._engines:
            known = ", ".join(self._engines)
            raise ProblemError(Code.UNKNOWN_CELL, f"there is no cell {cell!r}; there are {known}")
        return {cell: self._engines[cell]}

    def _label(self, name: str) -> str | None:
        return name if len(self._engines) > 1 else None


async def _wait_for_answers(tasks: Any, *, is_unique: bool) -> None:
    """Wait for all tasks; once one finds a thing that is unique, wait OTHERS_SECONDS_MAX and cancel the rest."""
    pending = set(tasks)
    is_found = False
    while pending and not is_found:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        is_found = is_unique and any(not task.exception() and task.result() is not None for task in done)
    if pending:
        _, late = await asyncio.wait(pending, timeout=OTHERS_SECONDS_MAX)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)


def _fault_of(task: "asyncio.Future[Any]") -> str | None:
    """Return why a cell did not answer, or None if it did. Raises its exception if that is not an outage."""
    if task.cancelled():
        return "no answer in time"
    error = task.exception()
    if error is None:
        return None
    if isinstance(error, LedgerUnavailable):
        return str(error)
    raise error


def _probe_of(engine: AsyncEngine) -> Probe:
    async def find_obstacle() -> str | None:
        try:
            await Ledger(engine).epoch()
        except LedgerUnavailable as error:
            return str(error)
        return None

    return find_obstacle
