"""What a command asks of several cells, and in which cell it changes something.

A command that reads asks all cells at once, unless it is told one, and says in which it found something.
What is not found is said only when every cell was asked. A command that writes needs to know where as soon as
there are several, and learns it from the integration if it names one.
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
from worker.cli.context import ask, ask_async
from worker.cli.exit_codes import ExitCode, fail, warn
from worker.cli.output import plain, print_answer
from worker.integrations import find_other_cell
from worker.queries.views import with_cell

Answer = TypeVar("Answer")
Asked = ParamSpec("Asked")

_FAULTS: Final = (LedgerUnavailable, BrokerUnavailable, SettingsError)


@dataclass
class Answers(Generic[Answer]):
    """What the cells answered."""

    are_several: bool
    """Whether several were asked, so that an answer says of which it is."""

    by_cell: dict[str, Answer] = field(default_factory=dict)
    faults: dict[str, CreditsError] = field(default_factory=dict)
    """Why the others didn't."""

    @property
    def found(self) -> dict[str, Answer]:
        """Those that are not None."""
        return {cell: answer for cell, answer in self.by_cell.items() if answer is not None}

    def label(self, cell: str) -> str | None:
        """Return what an answer is to be marked with: nothing where only one cell was asked."""
        return cell if self.are_several else None

    def end_if_incomplete(self) -> None:
        """End with the worst of the faults, if there are any: no answer is then the whole answer."""
        if not self.faults:
            return
        for cell, fault in self.faults.items():
            warn(f"cell {cell}: {fault}")
        is_wrong = any(isinstance(fault, SettingsError) for fault in self.faults.values())
        is_broker = any(isinstance(fault, BrokerUnavailable) for fault in self.faults.values())
        code = ExitCode.SETTINGS if is_wrong else ExitCode.BROKER if is_broker else ExitCode.DATABASE
        fail(code, f"incomplete: no answer from cell {', '.join(self.faults)}")


def cells_to_read(settings: Settings, cell: str | None, *needed: Part) -> Iterator[Settings]:
    """Yield the settings of the cell, or of all. Raises SettingsError."""
    for name in (cell,) if cell is not None else cells_of(settings):
        yield settings_of(settings, name, *needed)


def cell_to_change(settings: Settings, cell: str | None, *needed: Part, integration: str | None = None) -> Settings:
    """Return the settings of the one cell that a command changes. Ends with USAGE where that isn't known."""
    known = cells_of(settings)
    own = None
    if integration is not None and integration in settings.integrations:
        own = cell_of(settings, integration)
        if cell is not None and cell != own:
            fail(ExitCode.USAGE, f"--cell: {integration} is an integration of cell {own}")
    name = own if cell is None else cell
    if name is None and len(known) > 1:
        fail(ExitCode.USAGE, f"--cell: there are several cells: name one of {', '.join(known)}")
    return settings_of(settings, name, *needed)


def check_cursor(settings: Settings, cell: str | None, cursor: str | None) -> None:
    """Raise typer.BadParameter for a cursor where it is not known of which cell it is."""
    if cursor is not None and cell is None and len(cells_of(settings)) > 1:
        raise typer.BadParameter("--cursor goes with --cell where there are several cells")


def ask_cell(own: Settings, question: Callable[[AsyncEngine], Awaitable[Answer]]) -> Answer:
    """Return what the books of one cell, whose settings these are, answer. Raises as `ask` does."""
    with naming_cell(own.broker.cell):
        return ask(own.ledger, question)


def ask_cells(
    settings: Settings,
    cell: str | None,
    question: Callable[[AsyncEngine], Awaitable[Answer]],
    *,
    patient: bool = False,
) -> Answers[Answer]:
    """Return what the books of the cell, or of all side by side, answer.

    The fault of the only one is raised.
    """
    cells = list(cells_to_read(settings, cell, Part.LEDGER))
    return asyncio.run(_ask_cells(cells, question, patient=patient))


async def _ask_cells(
    cells: list[Settings], question: Callable[[AsyncEngine], Awaitable[Answer]], *, patient: bool
) -> Answers[Answer]:
    answers = Answers[Answer](are_several=len(cells) > 1)

    async def ask_one(own: Settings) -> None:
        name = own.broker.cell
        with collecting(answers, name):
            answers.by_cell[name] = await ask_async(own.ledger, question, migrated=True, patient=patient)

    await asyncio.gather(*map(ask_one, cells))
    order = {own.broker.cell: number for number, own in enumerate(cells)}
    answers.by_cell = dict(sorted(answers.by_cell.items(), key=lambda item: order[item[0]]))
    return answers


@contextmanager
def collecting(answers: Answers[Answer], cell: str) -> Iterator[None]:
    """Keep the fault of one of several cells beside the answers of the others; raise that of the only one."""
    try:
        with naming_cell(cell):
            yield
    except _FAULTS as fault:
        if not answers.are_several:
            raise
        answers.faults[cell] = fault


def read_cells(
    settings: Settings,
    cell: str | None,
    question: Callable[Concatenate[AsyncEngine, Currencies, Asked], Awaitable[Answer]],
    *asked: Asked.args,
    **named: Asked.kwargs,
) -> Answers[Answer]:
    """Return what one of `worker.queries.queries`'s questions answers, as `ask_cells` does."""
    currencies = Currencies(settings.currencies)
    return ask_cells(settings, cell, lambda engine: question(engine, currencies, *asked, **named))


def end_if_elsewhere(settings: Settings, cell: str | None, integration: str) -> None:
    """End with DATABASE where the books that were asked say that a cell that was not serves the integration.

    What they don't have is not known here then: that cell may be in no settings any more.
    """
    answers = ask_cells(settings, cell, lambda engine: find_other_cell(engine, integration))
    answers.end_if_incomplete()
    owners = {owner for owner in answers.by_cell.values() if owner is not None}
    if others := sorted(owners - answers.by_cell.keys()):
        fail(ExitCode.DATABASE, f"not known here: cell {others[0]} serves {integration}, and was not asked")


def say_found(  # noqa: PLR0913  (the last three are the exceptions)
    answers: Answers[Answer],
    text: Callable[[Any], str],
    missing: str,
    *,
    as_json: bool,
    code: ExitCode = ExitCode.NO,
    is_unique: bool = True,
) -> None:
    """Print what was found, by cell; end with `missing` where nothing was, and every cell was asked.

    What is unique is whole once it is found, and the fault of another cell is only noted.
    """
    for cell, answer in answers.found.items():
        say_of_cell(answer, text(answer), answers.label(cell), as_json=as_json)
    if answers.found and is_unique:
        for cell, fault in answers.faults.items():
            warn(f"cell {cell} was not asked: {fault}")
        return
    answers.end_if_incomplete()
    if not answers.found:
        fail(code, missing)


def say_of_cell(answer: Any, text: str, cell: str | None, *, as_json: bool) -> None:
    """Print an answer, and of which of several cells it is."""
    if cell is None:
        print_answer(answer, text, as_json=as_json)
        return
    print_answer(with_cell(answer, cell), f"cell {plain(cell)}\n{text}", as_json=as_json)
