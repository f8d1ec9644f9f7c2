"""The audit log records who changed what, and whose request was refused, in an append-only table.

An entry is written in the transaction of its change: if the entry can't be written, the change does not
happen. A repeat that changes nothing leaves no entry. PostgreSQL itself sets the time and the login of an
entry, so a user who may insert entries can neither backdate one nor write one as another login.

Anyone who knows a session's id can use its wallet, so the log has a fingerprint instead, by which entries about
the same session can be matched.

>>> subject_of({"player_id": "anna"}), subject_of({"integration": "klas", "round_id": "r"})
('player:anna', 'round:klas:r')
>>> subject_of({"integration": "gpas", "session_id": "s"})
'session:gpas:87d5870c6670558e'
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from worker.database.schema import audit_log

TEXT_CHARACTERS_MAX: Final = 256
"""Longer texts in a detail are cut, because they may come from a message that anybody has sent."""

LEDGER: Final = "ledger"
"""The subject of actions on the ledger as a whole."""

_FINGERPRINT_DIGITS: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Via(StrEnum):
    """The way in which an action was taken."""

    API = "api"
    CLI = "cli"
    PROCESS = "process"
    """No user: a process created what it needs, as the demonstration does."""


class Actor(NamedTuple):
    """The user or process that takes an action."""

    name: str
    via: Via
    os_user: str | None = None
    """The user according to the operating system, if `name` was given on the command line."""


PROCESS: Final = Actor("credits", Via.PROCESS)


class Action(StrEnum):
    """The actions that are recorded. An action is never renamed, because the log keeps old entries."""

    PLAYER_ADD = "player.add"
    SESSION_OPEN = "session.open"
    SESSION_CLOSE = "session.close"
    EPOCH_BUMP = "ledger.epoch"
    MIGRATE = "ledger.migrate"
    GRANTS = "ledger.grants"
    """The rights of roles in the database were set."""

    ASSIGN = "ledger.assign"
    """The ledger was assigned to a cell, or integrations were assigned to that cell."""

    DEAD_SEND_BACK = "dead.send_back"
    DEAD_DROP = "dead.drop"
    ACCESS = "access"
    """A request to the operator API was refused, because the user's role is too low for it."""


async def record(  # noqa: PLR0913, PLR0917  (the columns of an entry)
    connection: AsyncConnection,
    actor: Actor,
    action: Action,
    subject: str,
    outcome: str,
    detail: Mapping[str, Any],
) -> None:
    """Write an entry within the transaction of the action."""
    entry_id = uuid7()
    full_detail = {**detail, "os_user": actor.os_user} if actor.os_user is not None else detail
    await connection.execute(
        audit_log.insert().values(
            id=entry_id,
            at=moment_of(entry_id),
            actor=actor.name,
            via=actor.via.value,
            action=action.value,
            subject=subject,
            outcome=outcome,
            detail=msgspec.json.encode(full_detail).decode(),
        )
    )


def moment_of(entry_id: UUID) -> datetime:
    """Return when an entry was written, to the millisecond as its id has it: so a list by id is sorted by time."""
    return _EPOCH + timedelta(milliseconds=entry_id.int >> 80)


def first_id_at(moment: datetime) -> UUID:
    """Return the lowest id that an entry of `moment` or later can have.

    >>> first_id_at(datetime(2026, 1, 1, tzinfo=UTC))
    UUID('019b76da-a800-0000-0000-000000000000')
    """
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def subject_of(ids: Mapping[str, str]) -> str:
    """Return the subject that the ids of a request identify, for the audit log and the process log."""
    others = dict(ids)
    integration = others.pop("integration", None)
    if integration is not None and "session_id" in others:
        return session_subject(integration, others["session_id"])
    kinds = {
        "player_id": "player",
        "transfer_id": "transfer",
        "provider_tx_id": "transfer",
        "round_id": "round",
    }
    parts = (part for name, value in others.items() for part in (kinds[name], integration, value))
    return ":".join(part for part in parts if part is not None)


def session_subject(integration: str, session_id: str) -> str:
    """Return the subject for a session, with a fingerprint in place of its id."""
    digest = sha256(f"credits session\0{integration}\0{session_id}".encode()).hexdigest()
    return f"session:{integration}:{digest[:_FINGERPRINT_DIGITS]}"


def clipped(text: str) -> str:
    """Return a text for a detail, cut to TEXT_CHARACTERS_MAX."""
    return text[:TEXT_CHARACTERS_MAX]
