"""The command `verify`: audits the ledger of each cell, and checks that no integration has wins in two."""

from collections.abc import Mapping

from shared.cells import Part
from shared.money import Currencies
from shared.settings import Settings
from worker.cli.cells import CellAnswers, cells_to_read, collecting_faults, print_cell_answer
from worker.cli.context import call_with_engine
from worker.cli.exit_codes import ExitCode, fail, warn
from worker.cli.output import audit_text, print_answer
from worker.cli.progress import reporting_progress
from worker.integrations import find_posted
from worker.verify import Audit, verify


def verify_cells(settings: Settings, cell: str | None, *, full: bool, as_json: bool) -> None:
    """Audit the ledger of the named cell, or those of all cells in turn, and exit with the code of the worst result.

    A broken invariant is worse than a database that did not answer. Raises SettingsError and LedgerUnavailable.
    """
    cells = list(cells_to_read(settings, cell, Part.LEDGER))
    answers = CellAnswers[Audit](has_several_cells=len(cells) > 1)
    integrations_by_cell: dict[str, frozenset[str]] = {}
    broken = []
    for cell_settings in cells:
        name = cell_settings.broker.cell
        with collecting_faults(answers, name):
            audit = answers.by_cell[name] = _verify(cell_settings, full=full, as_json=as_json)
            print_cell_answer(audit, audit_text(audit), answers.label(name), as_json=as_json)
            if not audit.holds:
                broken.append(_broken_invariants(audit, answers.label(name)))
            if answers.has_several_cells:
                integrations_by_cell[name] = call_with_engine(cell_settings.ledger, find_posted)
    if duplicated := _find_in_several_cells(integrations_by_cell):
        text = "\n".join(f"{name} has wins in cells {', '.join(names)}" for name, names in duplicated.items())
        print_answer({"integrations_in_several_cells": duplicated}, text, as_json=as_json)
        broken.append(f"integrations in several cells: {', '.join(duplicated)}")
    if broken:
        for name, fault in answers.faults.items():
            warn(f"cell {name}: {fault}")
        fail(ExitCode.NO, f"the books are broken: {'; '.join(broken)}")
    answers.fail_if_incomplete()


def _verify(cell_settings: Settings, *, full: bool, as_json: bool) -> Audit:
    currencies = Currencies(cell_settings.currencies)
    with reporting_progress("verify", silent=as_json) as report:
        return call_with_engine(
            cell_settings.ledger,
            lambda engine: verify(engine, currencies, full=full, progress=report),
            no_statement_timeout=True,
        )


def _broken_invariants(audit: Audit, cell: str | None) -> str:
    names = ", ".join(finding.invariant for finding in audit.findings if finding.broken)
    return names if cell is None else f"cell {cell}: {names}"


def _find_in_several_cells(integrations_by_cell: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    """Return the integrations that have wins in more than one cell, since the same win may be paid in each."""
    cells_by_integration: dict[str, list[str]] = {}
    for cell, integrations in integrations_by_cell.items():
        for integration in integrations:
            cells_by_integration.setdefault(integration, []).append(cell)
    return {name: cells for name, cells in sorted(cells_by_integration.items()) if len(cells) > 1}
