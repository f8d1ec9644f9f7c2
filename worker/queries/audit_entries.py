"""The audit log as it is read: the newest entries first, a page at a time, of all or of some."""

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
from worker.queries.paging import LIMIT_MAX, Page, cut, read_cursor
from worker.queries.views import Moment

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)]


class AuditQuery(Page, frozen=True):
    """Which entries are wanted; all that is given must fit."""

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
    """`api`, `cli`, or `process` for what a process did by itself."""

    action: str
    subject: str
    outcome: str
    detail: dict[str, Any]
    login: str | None
    """Of the database, which has written it down; None on SQLite, and of entries before there was any."""


class AuditPage(msgspec.Struct, frozen=True):
    """Entries of the audit log, newest first."""

    entries: Annotated[list[AuditLine], msgspec.Meta(max_length=LIMIT_MAX)]
    next_cursor: str | None
    """What to ask on with; None: there are no older ones."""


async def list_audit(engine: AsyncEngine, wanted: AuditQuery) -> AuditPage:
    """Return a page of the audit log. Raises CursorError and LedgerUnavailable."""
    since = wanted.since.isoformat() if wanted.since is not None else None
    of = ("audit", *(str(value) for value in (wanted.actor, wanted.action, wanted.subject, since)))
    newest = _entries(wanted)
    if wanted.cursor is not None:
        newest = newest.where(audit_log.c.id < read_cursor(of, wanted.cursor))
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            rows = (await connection.execute(newest)).all()
    return AuditPage(*cut(of, rows, wanted.limit, _line))


def _entries(wanted: AuditQuery) -> Select[Any]:
    newest = select(audit_log).order_by(audit_log.c.id.desc()).limit(wanted.limit + 1)
    if wanted.actor is not None:
        newest = newest.where(audit_log.c.actor == wanted.actor)
    if wanted.action is not None:
        newest = newest.where(audit_log.c.action == wanted.action.value)
    if wanted.subject is not None:
        newest = newest.where(audit_log.c.subject == wanted.subject)
    if wanted.since is not None:
        newest = newest.where(audit_log.c.id >= first_id_at(wanted.since))
    return newest


def _line(row: Row[Any]) -> AuditLine:
    detail = msgspec.json.decode(row.detail, type=dict[str, Any])
    said = (row.actor, row.via, row.action, row.subject, row.outcome)
    return AuditLine(str(row.id), utc(row.at), *said, detail, row.login)
