"""`grants`: who may do what in PostgreSQL."""

from typing import Annotated

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from shared.cells import Part
from shared.settings import load_settings
from worker.cli.cells import cell_to_change
from worker.cli.context import ask, redacted_url
from worker.cli.exit_codes import ExitCode, fail
from worker.cli.options import ActingAs, Cell, actor_named
from worker.database.audit_log import Actor
from worker.database.grants import AUDITOR, OPERATOR, READER, WORKER, Rights, grant
from worker.database.grants import grants as statements_for

ROLE_CHARACTERS_MAX = 63


def _role(value: str | None) -> str | None:
    """Return a role's name as it is. Raises typer.BadParameter."""
    if value is not None and not (value.isprintable() and 0 < len(value.encode()) <= ROLE_CHARACTERS_MAX):
        raise typer.BadParameter(f"a role's name is 1 to {ROLE_CHARACTERS_MAX} printable characters")
    return value


def grants(  # noqa: PLR0913  (each is an option)
    worker: Annotated[str | None, typer.Option(metavar="ROLE", callback=_role, help="Posts: `worker run`.")] = None,
    operator: Annotated[
        str | None,
        typer.Option(metavar="ROLE", callback=_role, help="Opens players and sessions: `worker operator`."),
    ] = None,
    reader: Annotated[str | None, typer.Option(metavar="ROLE", callback=_role, help="Only reads.")] = None,
    auditor: Annotated[
        str | None, typer.Option(metavar="ROLE", callback=_role, help="Reads, and keeps where `verify` was.")
    ] = None,
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Carry it out, as the tables' owner that the settings name.")
    ] = False,
    cell: Cell = None,
    acting_as: ActingAs = None,
) -> None:
    """Print the SQL that gives each role what it needs and takes all else; for PostgreSQL, after `migrate`.

    The roles must be there. Run it again after each `migrate`: new tables are nobody's until then.
    """
    named: dict[str | None, Rights] = {worker: WORKER, operator: OPERATOR, reader: READER, auditor: AUDITOR}
    rights_by_role = {role: rights for role, rights in named.items() if role is not None}
    given = [role for role in (worker, operator, reader, auditor) if role is not None]
    if not given:
        raise typer.BadParameter("name a role with --worker, --operator, --reader or --auditor")
    if len(set(given)) < len(given):
        raise typer.BadParameter("each must be another role: their rights are not to add up")
    if apply:
        _apply(rights_by_role, cell, actor_named(acting_as))
    else:
        typer.echo("\n".join(["BEGIN;", *(f"{one};" for one in statements_for(rights_by_role)), "COMMIT;"]))


def _apply(rights_by_role: dict[str, Rights], cell: str | None, by: Actor) -> None:
    settings = cell_to_change(load_settings(), cell, Part.LEDGER).ledger
    if not make_url(settings.database_url).drivername.startswith("postgresql"):
        fail(ExitCode.NO, "[ledger] database_url: only PostgreSQL has roles")
    try:
        ask(settings, lambda engine: grant(engine, rights_by_role, by=by), patient=True)
    except DBAPIError as error:  # such as a role that is not there
        fail(ExitCode.NO, f"{redacted_url(settings)}: {next(iter(str(error.orig).splitlines()), '')}")
    typer.echo(f"{redacted_url(settings)}: granted to {', '.join(rights_by_role)}")
