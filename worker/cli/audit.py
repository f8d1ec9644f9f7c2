"""The command `audit`: the audit log of changes, and of attempts that were refused."""

from datetime import UTC, datetime
from typing import Annotated, Final

import typer

from shared.settings import load_settings
from worker.cli.cells import call_in_cells, check_cursor, print_found
from worker.cli.options import AsJson, Cell, Cursor, Limit, checked_if_given
from worker.cli.output import audit_log_text
from worker.database.audit_log import Action, session_subject
from worker.queries.audit_entries import AuditQuery, list_audit
from worker.queries.paging import LIMIT_DEFAULT

audit_log: Final = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="The audit log: changes, and attempts that were refused."
)


@audit_log.callback()
def _group() -> None:
    """Keep `list` a subcommand: Typer merges a group's only command into the group."""


def _parse_time(value: str) -> datetime:
    """Parse a date or time, in UTC unless it has an offset. Raises typer.BadParameter."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise typer.BadParameter("a date, or a time as in 2026-01-31T12:00:00+00:00") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


@audit_log.command("list")
def list_entries(  # noqa: PLR0913, PLR0917  (each is an option)
    actor: Annotated[str | None, typer.Option(help="The user who acted.", callback=checked_if_given)] = None,
    action: Annotated[Action | None, typer.Option(help="The kind of change.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(metavar="TIME", help="Only entries from this time on, in UTC.", parser=_parse_time),
    ] = None,
    subject: Annotated[str | None, typer.Option(help="The object of the change, such as player:ID.")] = None,
    session_id: Annotated[
        str | None,
        typer.Option("--session", help="The session as the subject; needs --integration.", callback=checked_if_given),
    ] = None,
    integration: Annotated[
        str | None, typer.Option(metavar="NAME", help="The session's integration.", callback=checked_if_given)
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    *,
    cell: Cell = None,
    as_json: AsJson = False,
) -> None:
    """List the audit log, newest first, a page at a time."""
    if (session_id is None) is not (integration is None) or (session_id and subject):
        raise typer.BadParameter("give --session with --integration, or --subject")
    if session_id is not None and integration is not None:
        subject = session_subject(integration, session_id)
    query = AuditQuery(limit, cursor, actor, action, subject, since)
    settings = load_settings()
    check_cursor(settings, cell, cursor)
    answers = call_in_cells(settings, cell, lambda engine: list_audit(engine, query))
    print_found(answers, audit_log_text, "", as_json=as_json, is_unique=False)
