"""Queries of the audit log: all entries or those that match, newest first, a page at a time."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import Row, Select, select
from sqlalchemy.ext.asyncio import AsyncEngine

from worker.database.audit_log import Action, first_id_at
from worker.database.engine import utc
from worker.database.faults import outages_as_unavailable
from worker.database.schema import audit_log
from worker.database.transactions import confirmed_snapshot
from worker.queries.paging import LIMIT_MAX, Page, cut_page, read_cursor
from worker.queries.views import Moment

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]


class AuditQuery(Page, frozen=True):
    """A filter for entries: every field that is given must match."""

    actor: Annotated[_Text, msgspec.Meta(description="Who acted.")] | None = None
    action: Annotated[Action, msgspec.Meta(description="What was done.")] | None = None
    subject: Annotated[_Text, msgspec.Meta(description="What was acted on, such as player:ID.")] | None = None
    since: Annotated[datetime, msgspec.Meta(tz=True, description="Not before this moment, with its offset.")] | None = (
        None
    )


class AuditLine(msgspec.Struct, frozen=True):
    """One entry of the audit log."""

    entry_id: str
    at: Moment
    actor: str
    via: str
    """`api`, `cli`, or `process` for an action that a process took by itself."""

    action: str
    subject: str
    outcome: str
    detail: dict[str, Any]
    login: str | None
    """The database login that wrote the entry, as the database recorded it; None on SQLite, and of older entries."""


class AuditPage(msgspec.Struct, frozen=True):
    """Entries of the audit log, newest first."""

    entries: Annotated[list[AuditLine], msgspec.Meta(max_length=LIMIT_MAX)]
    next_cursor: str | None
    """The cursor of the next page; None if there are no older entries."""


async def list_audit(engine: AsyncEngine, query: AuditQuery) -> AuditPage:
    """Return a page of the audit log. Raises CursorError and LedgerUnavailable."""
    since = query.since.isoformat() if query.since is not None else None
    list_key = ("audit", *(str(value) for value in (query.actor, query.action, query.subject, since)))
    newest = _entries(query)
    if query.cursor is not None:
        newest = newest.where(audit_log.c.id < read_cursor(list_key, query.cursor))
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            rows = (await connection.execute(newest)).all()
    return AuditPage(*cut_page(list_key, rows, query.limit, _line))


def _entries(query: AuditQuery) -> Select[Any]:
    newest = select(audit_log).order_by(audit_log.c.id.desc()).limit(query.limit + 1)
    if query.actor is not None:
        newest = newest.where(audit_log.c.actor == query.actor)
    if query.action is not None:
        newest = newest.where(audit_log.c.action == query.action.value)
    if query.subject is not None:
        newest = newest.where(audit_log.c.subject == query.subject)
    if query.since is not None:
        newest = newest.where(audit_log.c.id >= first_id_at(query.since))
    return newest


def _line(row: Row[Any]) -> AuditLine:
    detail = msgspec.json.decode(row.detail, type=dict[str, Any])
    return AuditLine(
        str(row.id), utc(row.at), row.actor, row.via, row.action, row.subject, row.outcome, detail, row.login
    )
