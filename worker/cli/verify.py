"""`verify`: the books of each cell, and that no integration has wins in two."""

from collections.abc import Mapping

from shared.cells import Part
from shared.money import Currencies
from shared.settings import Settings
from worker.cli.cells import Answers, cells_to_read, collecting, say_of_cell
from worker.cli.context import ask
from worker.cli.exit_codes import ExitCode, fail, warn
from worker.cli.output import audit_text, print_answer
from worker.cli.progress import telling_progress
from worker.integrations import find_posted
from worker.verify import Audit, verify


def verify_cells(settings: Settings, cell: str | None, *, full: bool, as_json: bool) -> None:
    """Audit the books of the cell, or of all in turn, and end with the worst that was found.

    Broken books are worse than those that gave no answer. Raises SettingsError and LedgerUnavailable.
    """
    cells = list(cells_to_read(settings, cell, Part.LEDGER))
    answers, posted = Answers[Audit](are_several=len(cells) > 1), dict[str, frozenset[str]]()
    broken = []
    for own in cells:
        name = own.broker.cell
        with collecting(answers, name):
            audit = answers.by_cell[name] = _verify(own, full=full, as_json=as_json)
            say_of_cell(audit, audit_text(audit), answers.label(name), as_json=as_json)
            if not audit.holds:
                broken.append(_broken(audit, answers.label(name)))
            if answers.are_several:
                posted[name] = ask(own.ledger, find_posted)
    if twice := _in_several(posted):
        text = "\n".join(f"{name} has wins in cells {', '.join(where)}" for name, where in twice.items())
        print_answer({"integrations_in_several_cells": twice}, text, as_json=as_json)
        broken.append(f"integrations in several cells: {', '.join(twice)}")
    if broken:
        for name, fault in answers.faults.items():
            warn(f"cell {name}: {fault}")
        fail(ExitCode.NO, f"the books are broken: {'; '.join(broken)}")
    answers.end_if_incomplete()


def _verify(own: Settings, *, full: bool, as_json: bool) -> Audit:
    currencies = Currencies(own.currencies)
    with telling_progress("verify", silent=as_json) as tell:
        return ask(
            own.ledger,
            lambda engine: verify(engine, currencies, full=full, progress=tell),
            patient=True,
        )


def _broken(audit: Audit, cell: str | None) -> str:
    names = ", ".join(finding.invariant for finding in audit.findings if finding.broken)
    return names if cell is None else f"cell {cell}: {names}"


def _in_several(posted: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Return the integrations that have wins in more than one cell: the same win may be paid in each."""
    where: dict[str, list[str]] = {}
    for cell, integrations in posted.items():
        for integration in integrations:
            where.setdefault(integration, []).append(cell)
    return {name: cells for name, cells in sorted(where.items()) if len(cells) > 1}
