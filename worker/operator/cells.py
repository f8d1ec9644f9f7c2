"""The books of all cells: in which to look, and in which to change something.

Whoever looks for a thing asks all cells at once. An answer that can be had from none because one gave none is
'ask again', never 'not found'. Whoever changes something says in which cell as soon as there are several.
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
from worker.operator.problems import RETRY_SECONDS, Code, Refused

OTHERS_SECONDS_MAX: Final = 1.0
"""How long other cells are waited for once what is unique was found."""

_ASK_AGAIN: Final = {"Retry-After": str(RETRY_SECONDS)}

_log: Final = structlog.get_logger()

T = TypeVar("T")


class Found(NamedTuple, Generic[T]):
    """An answer, and of several cells the one that gave it."""

    answer: T
    cell: str | None


class Cells:
    """An engine for each cell."""

    def __init__(self, settings: Settings) -> None:
        """Make the engines. Raises SettingsError."""
        self._settings: Final = settings
        self._engines: Final[dict[str, AsyncEngine]] = {}
        for name in cells_of(settings):
            with naming_cell(name):
                self._engines[name] = create_engine(settings_of(settings, name, Part.LEDGER).ledger)

    @property
    def default(self) -> AsyncEngine:
        """The books where it is written down who was refused: the first cell's."""
        return next(iter(self._engines.values()))

    @property
    def probes(self) -> Mapping[str, Probe]:
        """What tells whether each cell's books answer."""
        return {name: _probe_of(engine) for name, engine in self._engines.items()}

    async def require_migrated(self) -> None:
        """Raise SettingsError for tables of another version, and LedgerUnavailable where no cell answers."""
        names = list(self._engines)
        found = await asyncio.gather(*map(self._require_migrated, names))
        if (first := found[0]) is not None and all(found):
            raise first
        for name, fault in zip(names, found, strict=True):
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
        """Close all."""
        await asyncio.gather(*(engine.dispose() for engine in self._engines.values()))

    def one(self, cell: str | None, integration: str | None = None) -> Found[AsyncEngine]:
        """Return the books of the one cell that is named, that the integration is of, or that there is.

        Raises Refused.
        """
        own = None
        if integration is not None and integration in self._settings.integrations:
            own = cell_of(self._settings, integration)
            if cell is not None and cell != own:
                raise Refused(Code.INVALID_QUERY, f"cell: {integration!r} is an integration of cell {own!r}")
        ((name, engine), *others) = self._named(own if cell is None else cell).items()
        if others:
            known = ", ".join(self._engines)
            raise Refused(Code.SEVERAL_CELLS, f"there are several cells; name one with ?cell=, of {known}")
        return Found(engine, self._label(name))

    async def search(
        self,
        cell: str | None,
        question: Callable[[AsyncEngine], Awaitable[T | None]],
        *,
        is_unique: bool = True,
    ) -> Found[T] | None:
        """Return what the cell that is named, or the only one of all that has it, answers; None: nothing.

        What is unique over cells is believed once it is found, whoever else gave no answer. Raises Refused
        when several have it, or when a cell that may have it gave no answer; and as `question` does.
        """
        asked = {name: asyncio.ensure_future(question(engine)) for name, engine in self._named(cell).items()}
        if len(asked) == 1:
            ((name, only),) = asked.items()
            answer = await only
            return None if answer is None else Found(answer, self._label(name))
        await _wait(asked.values(), is_unique=is_unique)
        faults = {name: fault for name, task in asked.items() if (fault := _fault_of(task)) is not None}
        found = {name: task.result() for name, task in asked.items() if name not in faults}
        having = {name: answer for name, answer in found.items() if answer is not None}
        if len(having) > 1:
            detail = f"cells {', '.join(having)} have it; name one with ?cell="
            raise Refused(Code.SEVERAL_CELLS, detail)
        for name, fault in faults.items():
            _log.warning("no answer from the books", cell=name, reason=fault)
        if faults and not (having and is_unique):
            detail = f"incomplete: cell {', '.join(faults)} gave no answer; ask again, or another with ?cell="
            raise Refused(Code.UNAVAILABLE, detail, _ASK_AGAIN)
        return next((Found(answer, name) for name, answer in having.items()), None)

    async def refuse_elsewhere(self, cell: str | None, integration: str) -> None:
        """Raise Refused where the books say that a cell that was not asked serves the integration.

        What was not found is not known then: the cell may be in no settings now. Raises LedgerUnavailable.
        """
        asked = self._named(cell)
        others = await asyncio.gather(*(find_other_cell(engine, integration) for engine in asked.values()))
        if unasked := sorted({other for other in others if other is not None} - asked.keys()):
            detail = f"not known here: cell {unasked[0]} serves {integration!r}, and was not asked"
            raise Refused(Code.UNAVAILABLE, detail, _ASK_AGAIN)

    def _named(self, cell: str | None) -> Mapping[str, AsyncEngine]:
        if cell is None:
            return self._engines
        if re.fullmatch(CELL_NAME, cell) is None:
            raise Refused(Code.INVALID_QUERY, f"cell: a name has the form {CELL_NAME}")
        if cell not in self._engines:
            known = ", ".join(self._engines)
            raise Refused(Code.UNKNOWN_CELL, f"there is no cell {cell!r}; there are {known}")
        return {cell: self._engines[cell]}

    def _label(self, name: str) -> str | None:
        return name if len(self._engines) > 1 else None


async def _wait(tasks: Any, *, is_unique: bool) -> None:
    """Wait for all, or for a while only once what is unique was found; cancel what is late then."""
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
    """Return why a cell gave no answer, or None where it gave one. Raises what is no outage."""
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
