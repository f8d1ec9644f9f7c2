"""Commands and cells: a command reads from all cells, and changes one.

A command that reads queries all cells at once, unless `--cell` names one, and prints which cell each answer is from.
It reports 'not found' only if every cell answered. A command that changes something needs the name of its cell if
there are several; if it names an integration, that integration's cell is the one.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.cells import Part, cell_of, cells_of, naming_cell, settings_of
from shared.errors import BrokerUnavailable, CreditsError, LedgerUnavailable, SettingsError
from shared.money import Currencies
from shared.settings import Settings
from worker.cli.context import call_with_engine, call_with_engine_async
from worker.cli.exit_codes import ExitCode, fail, warn
from worker.cli.output import print_answer, printable
from worker.integrations import find_other_cell
from worker.queries.views import with_cell

Answer = TypeVar("Answer")
Params = ParamSpec("Params")

_FAULTS: Final = (LedgerUnavailable, BrokerUnavailable, SettingsError)


@dataclass
class CellAnswers(Generic[Answer]):
    """The answers of the cells that a command read from, and the faults of those that did not answer."""

    has_several_cells: bool
    """Whether several cells were read from, so that each answer is printed with its cell."""

    by_cell: dict[str, Answer] = field(default_factory=dict)
    faults: dict[str, CreditsError] = field(default_factory=dict)
    """Why each of the other cells did not answer."""

    @property
    def found(self) -> dict[str, Answer]:
        """The answers that are not None, by cell."""
        return {cell: answer for cell, answer in self.by_cell.items() if answer is not None}

    def label(self, cell: str) -> str | None:
        """Return the cell's name to print with its answer, or None if only one cell was read from."""
        return cell if self.has_several_cells else None

    def fail_if_incomplete(self) -> None:
        """Exit with the code of the worst fault, if there are any, since the answers are incomplete then."""
        if not self.faults:
            return
        for cell, fault in self.faults.items():
            warn(f"cell {cell}: {fault}")
        has_wrong_settings = any(isinstance(fault, SettingsError) for fault in self.faults.values())
        has_no_broker = any(isinstance(fault, BrokerUnavailable) for fault in self.faults.values())
        code = ExitCode.SETTINGS if has_wrong_settings else ExitCode.BROKER if has_no_broker else ExitCode.DATABASE
        fail(code, f"incomplete: no answer from cell {', '.join(self.faults)}")


def cells_to_read(settings: Settings, cell: str | None, *needed: Part) -> Iterator[Settings]:
    """Yield the settings of the named cell, or of each cell. Raises SettingsError."""
    for name in (cell,) if cell is not None else cells_of(settings):
        yield settings_of(settings, name, *needed)


def cell_to_change(settings: Settings, cell: str | None, *needed: Part, integration: str | None = None) -> Settings:
    """Return the settings of the one cell that a command changes. Exits with USAGE if it isn't clear which."""
    known = cells_of(settings)
    serving_cell = None
    if integration is not None and integration in settings.integrations:
        serving_cell = cell_of(settings, integration)
        if cell is not None and cell != serving_cell:
            fail(ExitCode.USAGE, f"--cell: {integration} is an integration of cell {serving_cell}")
    name = serving_cell if cell is None else cell
    if name is None and len(known) > 1:
        fail(ExitCode.USAGE, f"--cell: there are several cells: name one of {', '.join(known)}")
    return settings_of(settings, name, *needed)


def check_cursor(settings: Settings, cell: str | None, cursor: str | None) -> None:
    """Raise typer.BadParameter for a cursor without a cell if there are several: a cursor is of one cell."""
    if cursor is not None and cell is None and len(cells_of(settings)) > 1:
        raise typer.BadParameter("--cursor goes with --cell where there are several cells")


def call_in_cell(cell_settings: Settings, function: Callable[[AsyncEngine], Awaitable[Answer]]) -> Answer:
    """Call `function` with the database of the cell that has these settings. Raises as `call_with_engine` does."""
    with naming_cell(cell_settings.broker.cell):
        return call_with_engine(cell_settings.ledger, function)


def call_in_cells(
    settings: Settings, cell: str | None, function: Callable[[AsyncEngine], Awaitable[Answer]]
) -> CellAnswers[Answer]:
    """Call `function` with the database of the named cell, or with those of all cells at once.

    If there is only one cell, its fault is raised, as `call_with_engine` does.
    """
    cells = list(cells_to_read(settings, cell, Part.LEDGER))
    return asyncio.run(_call_in_cells(cells, function))


async def _call_in_cells(
    cells: list[Settings], function: Callable[[AsyncEngine], Awaitable[Answer]]
) -> CellAnswers[Answer]:
    answers = CellAnswers[Answer](has_several_cells=len(cells) > 1)

    async def call_in_one(cell_settings: Settings) -> None:
        name = cell_settings.broker.cell
        with collecting_faults(answers, name):
            answers.by_cell[name] = await call_with_engine_async(cell_settings.ledger, function)

    await asyncio.gather(*map(call_in_one, cells))
    # The answers came in any order; they are printed in that of the settings.
    names = (cell_settings.broker.cell for cell_settings in cells)
    answers.by_cell = {name: answers.by_cell[name] for name in names if name in answers.by_cell}
    return answers


@contextmanager
def collecting_faults(answers: CellAnswers[Answer], cell: str) -> Iterator[None]:
    """Collect the fault of a cell in `answers`, so that the other cells are still read; raise that of the only cell."""
    try:
        with naming_cell(cell):
            yield
    except _FAULTS as fault:
        if not answers.has_several_cells:
            raise
        answers.faults[cell] = fault


def query_cells(
    settings: Settings,
    cell: str | None,
    query: Callable[Concatenate[AsyncEngine, Currencies, Params], Awaitable[Answer]],
    *args: Params.args,
    **kwargs: Params.kwargs,
) -> CellAnswers[Answer]:
    """Run a query of `worker.queries.queries` in the named cell or in all cells, as `call_in_cells` does."""
    currencies = Currencies(settings.currencies)
    return call_in_cells(settings, cell, lambda engine: query(engine, currencies, *args, **kwargs))


def fail_if_served_elsewhere(settings: Settings, cell: str | None, integration: str) -> None:
    """Exit with DATABASE if a database that was read from says that a cell not read from serves the integration.

    A thing that was not found may be in that cell then, which the settings may no longer name.
    """
    answers = call_in_cells(settings, cell, lambda engine: find_other_cell(engine, integration))
    answers.fail_if_incomplete()
    owners = {owner for owner in answers.by_cell.values() if owner is not None}
    if others := sorted(owners - answers.by_cell.keys()):
        fail(ExitCode.DATABASE, f"not known here: cell {others[0]} serves {integration}, and was not asked")


def print_found(  # noqa: PLR0913  (the keyword-only ones are options)
    answers: CellAnswers[Answer],
    text: Callable[[Any], str],
    missing: str,
    *,
    as_json: bool,
    code: ExitCode = ExitCode.NO,
    is_unique: bool = True,
) -> None:
    """Print the answers that are not None, by cell. If there is none and every cell answered, exit with `code`.

    If the thing is unique over cells, one answer is enough, and a fault of another cell is only a warning.
    """
    for cell, answer in answers.found.items():
        print_cell_answer(answer, text(answer), answers.label(cell), as_json=as_json)
    if answers.found and is_unique:
        for cell, fault in answers.faults.items():
            warn(f"cell {cell} was not asked: {fault}")
        return
    answers.fail_if_incomplete()
    if not answers.found:
        fail(code, missing)


def print_cell_answer(answer: Any, text: str, cell: str | None, *, as_json: bool) -> None:
    """Print an answer, with its cell if there are several."""
    if cell is None:
        print_answer(answer, text, as_json=as_json)
        return
    print_answer(with_cell(answer, cell), f"cell {printable(cell)}\n{text}", as_json=as_json)
