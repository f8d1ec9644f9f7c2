"""`migrate`: the tables of each cell, and then which integrations each serves."""

import asyncio
from contextlib import AsyncExitStack

import typer

from shared.cells import Part
from shared.settings import Settings
from worker.cli.cells import Answers, cells_to_read, collecting
from worker.cli.context import ask, redacted_url
from worker.cli.exit_codes import warn
from worker.database.audit_log import Actor
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.integrations import assign


def migrate_cells(settings: Settings, cell: str | None, by: Actor, *, wait_seconds: int) -> None:
    """Bring the tables of the cell, or of all, to this version.

    Where all cells were reached, their integrations are assigned. Raises SettingsError and LedgerUnavailable.
    """
    cells = list(cells_to_read(settings, cell, Part.LEDGER))
    answers = Answers[str](are_several=len(cells) > 1)
    for own in cells:
        with collecting(answers, own.broker.cell):
            before, after = ask(
                own.ledger,
                lambda engine: migrate(engine, by=by, wait_seconds=wait_seconds, notify=warn),
                migrated=False,
                patient=True,
            )
            came = "was there already" if before == after else f"from {before or 'no tables'}"
            name = f"cell {own.broker.cell}, " if answers.are_several else ""
            typer.echo(f"{name}{redacted_url(own.ledger)}: at revision {after}, {came}")
    answers.end_if_incomplete()
    if settings.cells and cell is None:
        for name, new in asyncio.run(_assign(cells, by)).items():
            if new:
                typer.echo(f"cell {name} serves {', '.join(new)} from now on")
    elif settings.cells:
        warn("integrations are assigned to cells by `migrate` without --cell, which reaches all")


async def _assign(cells: list[Settings], by: Actor) -> dict[str, list[str]]:
    async with AsyncExitStack() as stack:
        engines = {}
        for own in cells:
            engine = engines[own.broker.cell] = create_engine(own.ledger)
            stack.push_async_callback(engine.dispose)
        return await assign(engines, {own.broker.cell: own.integrations for own in cells}, by=by)
