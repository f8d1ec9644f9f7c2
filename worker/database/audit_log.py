"""The audit log: who changed what, or was refused, in a table that only grows.

An entry is written in the transaction of its change: where the entry can't be written, the change does not
happen. A repeat that changes nothing leaves no entry. PostgreSQL itself sets when an entry was written and by
which of its logins: whoever may write entries dates none back, and writes none as another login.

A session's id opens a wallet to whoever knows it, so a session is named by a fingerprint, by which entries
about the same session can be matched.

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
"""Longer texts in a detail are cut: what is acted on may come from a stranger's message."""

LEDGER: Final = "ledger"
"""The subject of what concerns the books as a whole."""

_FINGERPRINT_DIGITS: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Via(StrEnum):
    """How somebody acted."""

    API = "api"
    CLI = "cli"
    PROCESS = "process"
    """Nobody in particular: a process made what it needs, as the demonstration does."""


class Actor(NamedTuple):
    """Who acts."""

    name: str
    via: Via
    os_user: str | None = None
    """Who the system says it is, where `name` is what somebody on the command line says."""


PROCESS: Final = Actor("credits", Via.PROCESS)


class Action(StrEnum):
    """What is done. The set is closed: an action is never renamed."""

    PLAYER_ADD = "player.add"
    SESSION_OPEN = "session.open"
    SESSION_CLOSE = "session.close"
    EPOCH_BUMP = "ledger.epoch"
    MIGRATE = "ledger.migrate"
    GRANTS = "ledger.grants"
    """Somebody's rights in the database were set."""

    ASSIGN = "ledger.assign"
    """The books became a cell's, or integrations were assigned to it."""

    DEAD_SEND_BACK = "dead.send_back"
    DEAD_DROP = "dead.drop"
    ACCESS = "access"
    """A request to the operator API for which the user's role is too low."""


async def record(  # noqa: PLR0913, PLR0917  (the columns of an entry)
    connection: AsyncConnection,
    actor: Actor,
    action: Action,
    subject: str,
    outcome: str,
    detail: Mapping[str, Any],
) -> None:
    """Write an entry within the transaction of what it is about."""
    entry_id = uuid7()
    said = {**detail, "os_user": actor.os_user} if actor.os_user is not None else detail
    await connection.execute(
        audit_log.insert().values(
            id=entry_id,
            at=moment_of(entry_id),
            actor=actor.name,
            via=actor.via.value,
            action=action.value,
            subject=subject,
            outcome=outcome,
            detail=msgspec.json.encode(said).decode(),
        )
    )


def moment_of(entry_id: UUID) -> datetime:
    """Return when an entry was written, in milliseconds, so that a list by id is a list by time."""
    return _EPOCH + timedelta(milliseconds=entry_id.int >> 80)


def first_id_at(moment: datetime) -> UUID:
    """Return the lowest id that an entry of `moment` or later can have.

    >>> first_id_at(datetime(2026, 1, 1, tzinfo=UTC))
    UUID('019b76da-a800-0000-0000-000000000000')
    """
    milliseconds = (moment - _EPOCH) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), 2**48 - 1) << 80)


def subject_of(ids: Mapping[str, str]) -> str:
    """Return what the ids of a request name, as the audit log and the process log have it."""
    named = dict(ids)
    integration = named.pop("integration", None)
    if integration is not None and "session_id" in named:
        return session_subject(integration, named["session_id"])
    kinds = {
        "player_id": "player",
        "transfer_id": "transfer",
        "provider_tx_id": "transfer",
        "round_id": "round",
    }
    parts = (part for name, value in named.items() for part in (kinds[name], integration, value))
    return ":".join(part for part in parts if part is not None)


def session_subject(integration: str, session_id: str) -> str:
    """Return what stands for a session wherever its id must not."""
    digest = sha256(f"credits session\0{integration}\0{session_id}".encode()).hexdigest()
    return f"session:{integration}:{digest[:_FINGERPRINT_DIGITS]}"


def clipped(text: str) -> str:
    """Return a text for a detail, no longer than its bound."""
    return text[:TEXT_CHARACTERS_MAX]
