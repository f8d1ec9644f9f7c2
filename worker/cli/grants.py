"""The command `grants`: the rights of each role in PostgreSQL."""

from typing import Annotated

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from shared.cells import Part
from shared.settings import load_settings
from worker.cli.cells import cell_to_change
from worker.cli.context import call_with_engine, redacted_url
from worker.cli.exit_codes import ExitCode, fail
from worker.cli.options import ActingAs, Cell, actor_named
from worker.database.audit_log import Actor
from worker.database.grants import AUDITOR, OPERATOR, READER, WORKER, Rights, grant
from worker.database.grants import grants as statements_for

ROLE_CHARACTERS_MAX = 63


def _role(value: str | None) -> str | None:
    """Check the name of a role and return it unchanged. Raises typer.BadParameter."""
    if value is not None and not (value.isprintable() and 0 < len(value.encode()) <= ROLE_CHARACTERS_MAX):
        raise typer.BadParameter(f"a role's name is 1 to {ROLE_CHARACTERS_MAX} printable characters")
    return value


def grants(  # noqa: PLR0913  (each is an option)
    worker: Annotated[
        str | None, typer.Option(metavar="ROLE", callback=_role, help="The role of `worker run`, which posts credits.")
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE", callback=_role, help="The role of `worker operator`, which adds players and opens sessions."
        ),
    ] = None,
    reader: Annotated[str | None, typer.Option(metavar="ROLE", callback=_role, help="A role that only reads.")] = None,
    auditor: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE", callback=_role, help="The role of `verify`, which reads, and stores its checkpoints."
        ),
    ] = None,
    *,
    apply: Annotated[
        bool, typer.Option("--apply", help="Run the SQL, as the tables' owner that the settings name.")
    ] = False,
    cell: Cell = None,
    acting_as: ActingAs = None,
) -> None:
    """Print the SQL that grants each role the rights it needs and revokes all others. For PostgreSQL only.

    The roles must exist. Run it after each `migrate`: until then, no role has rights on new tables.
    """
    options = ((worker, WORKER), (operator, OPERATOR), (reader, READER), (auditor, AUDITOR))
    given = [(role, rights) for role, rights in options if role is not None]
    rights_by_role: dict[str, Rights] = dict(given)
    if not given:
        raise typer.BadParameter("name a role with --worker, --operator, --reader or --auditor")
    if len(rights_by_role) < len(given):
        raise typer.BadParameter("each must be another role: their rights are not to add up")
    if apply:
        _apply(rights_by_role, cell, actor_named(acting_as))
    else:
        typer.echo("\n".join(["BEGIN;", *(f"{statement};" for statement in statements_for(rights_by_role)), "COMMIT;"]))


def _apply(rights_by_role: dict[str, Rights], cell: str | None, by: Actor) -> None:
    settings = cell_to_change(load_settings(), cell, Part.LEDGER).ledger
    if not make_url(settings.database_url).drivername.startswith("postgresql"):
        fail(ExitCode.NO, "[ledger] database_url: only PostgreSQL has roles")
    try:
        call_with_engine(settings, lambda engine: grant(engine, rights_by_role, by=by), no_statement_timeout=True)
    except DBAPIError as error:  # such as a role that does not exist
        fail(ExitCode.NO, f"{redacted_url(settings)}: {next(iter(str(error.orig).splitlines()), '')}")
    typer.echo(f"{redacted_url(settings)}: granted to {', '.join(rights_by_role)}")
