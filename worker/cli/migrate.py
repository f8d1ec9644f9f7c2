"""The command `migrate`: migrates the tables of each cell, then assigns integrations to cells."""

import asyncio
from contextlib import AsyncExitStack

import typer

from shared.cells import Part
from shared.settings import Settings
from worker.cli.cells import CellAnswers, cells_to_read, collecting_faults
from worker.cli.context import call_with_engine, redacted_url
from worker.cli.exit_codes import warn
from worker.database.audit_log import Actor
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.integrations import assign


def migrate_cells(settings: Settings, cell: str | None, by: Actor, *, wait_seconds: int) -> None:
    """Bring the tables of the named cell, or of all cells, to this version.

    If all cells were migrated, their integrations are assigned. Raises SettingsError and LedgerUnavailable.
    """
    cells = list(cells_to_read(settings, cell, Part.LEDGER))
    answers = CellAnswers[str](has_several_cells=len(cells) > 1)
    for cell_settings in cells:
        with collecting_faults(answers, cell_settings.broker.cell):
            before, after = call_with_engine(
                cell_settings.ledger,
                lambda engine: migrate(engine, by=by, wait_seconds=wait_seconds, notify=warn),
                requires_migrated=False,
                no_statement_timeout=True,
            )
            origin = "was there already" if before == after else f"from {before or 'no tables'}"
            name = f"cell {cell_settings.broker.cell}, " if answers.has_several_cells else ""
            typer.echo(f"{name}{redacted_url(cell_settings.ledger)}: at revision {after}, {origin}")
    answers.fail_if_incomplete()
    if settings.cells and cell is None:
        for name, new in asyncio.run(_assign(cells, by)).items():
            if new:
                typer.echo(f"cell {name} serves {', '.join(new)} from now on")
    elif settings.cells:
        warn("integrations are assigned to cells by `migrate` without --cell, which reaches all")


async def _assign(cells: list[Settings], by: Actor) -> dict[str, list[str]]:
    async with AsyncExitStack() as stack:
        engines = {}
        for cell_settings in cells:
            engine = engines[cell_settings.broker.cell] = create_engine(cell_settings.ledger)
            stack.push_async_callback(engine.dispose)
        return await assign(
            engines, {cell_settings.broker.cell: cell_settings.integrations for cell_settings in cells}, by=by
        )
