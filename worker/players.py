"""Adds players with their wallets, and opens and closes the sessions in which they play.

Every call may be repeated: existing rows are left unchanged, and the answer says that they exist. Changes and
refusals are recorded in the audit log, in the same transaction.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from shared.operations import Wallet
from worker.database.audit_log import PROCESS, Action, Actor, record, session_subject, subject_of
from worker.database.engine import utc
from worker.database.faults import outages_as_unavailable
from worker.database.schema import players, sessions, wallets
from worker.database.transactions import confirmed_snapshot, transaction
from worker.queries.views import Moment


class Added(StrEnum):
    """What `add_player` has added."""

    PLAYER = "player"
    WALLETS = "wallets"
    """The player existed, without wallets in this currency."""

    NOTHING = "nothing"


class PlayerAdded(msgspec.Struct, frozen=True):
    """The result of `add_player`."""

    player_id: str
    currency: str
    """The player's own currency, which the first call has set; the wallets may be in another."""

    wallets_currency: str
    added: Added


class SessionResult(StrEnum):
    """The results of `open_session` and `close_session`."""

    OPENED = "opened"
    ALREADY_OPEN = "already_open"
    CLOSED = "closed"
    ALREADY_CLOSED = "already_closed"
    ENDED = "ended"
    """The session was closed earlier. It can't be reopened, because a late repeat of the request must not do so."""

    ANOTHERS = "anothers"
    """The id is that of another player's session, or of one in another currency; neither ever changes."""

    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_PLAYER = "unknown_player"
    NO_WALLETS = "no_wallets"
    """The player has no wallets in the session's currency."""


class Session(msgspec.Struct, frozen=True):
    """A provider's wallet session."""

    integration: str
    session_id: str
    player_id: str
    currency: str
    opened_at: Moment
    closed_at: Moment | None


class SessionAnswer(msgspec.Struct, frozen=True):
    """The result of `open_session` and `close_session`, with the session as it is now if there is one."""

    result: SessionResult
    session: Session | None = None


_CHANGES = {SessionResult.OPENED, SessionResult.CLOSED}
_REPEATS = {SessionResult.ALREADY_OPEN, SessionResult.ALREADY_CLOSED}


def _always() -> bool:
    return True


def _is_recorded(result: SessionResult, records_refusal: Callable[[], bool]) -> bool:
    """Return whether a result goes to the audit log: every change does, and a refusal if the caller wants that."""
    return result in _CHANGES or (result not in _REPEATS and records_refusal())


async def add_player(engine: AsyncEngine, player_id: str, currency: str, *, by: Actor = PROCESS) -> PlayerAdded:
    """Add a player with a REAL and a BONUS wallet in `currency`, or only those of these rows that are missing.

    Raises LedgerUnavailable.
    """
    now = datetime.now(UTC)
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            player = {"id": player_id, "currency": currency, "created_at": now}
            new_player = await _insert_missing(connection, players, player)
            pair = [_empty_wallet(player_id, currency, kind) for kind in Wallet]
            new_wallets = [await _insert_missing(connection, wallets, wallet) for wallet in pair]
            own_currency = (await connection.execute(_OWN_CURRENCY, {"player_id": player_id})).scalar_one()
            added = Added.PLAYER if new_player else Added.WALLETS if any(new_wallets) else Added.NOTHING
            if added is not Added.NOTHING:
                subject, detail = subject_of({"player_id": player_id}), {"currency": currency}
                await record(connection, by, Action.PLAYER_ADD, subject, added, detail)
    return PlayerAdded(player_id, own_currency, currency, added)


async def open_session(  # noqa: PLR0913  (the session's four fields, and two of the audit log)
    engine: AsyncEngine,
    integration: str,
    session_id: str,
    player_id: str,
    currency: str | None = None,
    *,
    by: Actor = PROCESS,
    records_refusal: Callable[[], bool] = _always,
) -> SessionAnswer:
    """Open a session of `player_id` in `currency`, by default the player's own. Raises LedgerUnavailable."""
    subject, detail = session_subject(integration, session_id), {"player_id": player_id, "currency": currency}
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            answer = await _open_session(connection, integration, session_id, player_id, currency)
            if _is_recorded(answer.result, records_refusal):
                await record(connection, by, Action.SESSION_OPEN, subject, answer.result, detail)
    return answer


async def _open_session(
    connection: AsyncConnection, integration: str, session_id: str, player_id: str, currency: str | None
) -> SessionAnswer:
    own_currency = (await connection.execute(_OWN_CURRENCY, {"player_id": player_id})).scalar_one_or_none()
    if own_currency is None:
        return SessionAnswer(SessionResult.UNKNOWN_PLAYER)
    currency = currency or own_currency
    if not await _has_wallets(connection, player_id, currency):
        return SessionAnswer(SessionResult.NO_WALLETS)
    row = {
        "integration": integration,
        "id": session_id,
        "player_id": player_id,
        "currency": currency,
        "opened_at": datetime.now(UTC),
    }
    is_new = await _insert_missing(connection, sessions, row)
    session = await _find_session(connection, integration, session_id)
    if session is None or (session.player_id, session.currency) != (player_id, currency):
        return SessionAnswer(SessionResult.ANOTHERS, session)
    if session.closed_at is not None:
        return SessionAnswer(SessionResult.ENDED, session)
    return SessionAnswer(SessionResult.OPENED if is_new else SessionResult.ALREADY_OPEN, session)


async def close_session(
    engine: AsyncEngine,
    integration: str,
    session_id: str,
    *,
    by: Actor = PROCESS,
    records_refusal: Callable[[], bool] = _always,
) -> SessionAnswer:
    """Close a session. Later wins of its rounds are still owed, and paid. Raises LedgerUnavailable."""
    subject = session_subject(integration, session_id)
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            answer = await _close_session(connection, integration, session_id)
            if _is_recorded(answer.result, records_refusal):
                await record(connection, by, Action.SESSION_CLOSE, subject, answer.result, {})
    return answer


async def _close_session(connection: AsyncConnection, integration: str, session_id: str) -> SessionAnswer:
    closing = (
        update(sessions)
        .where(sessions.c.integration == integration, sessions.c.id == session_id, sessions.c.closed_at.is_(None))
        .values(closed_at=datetime.now(UTC))
    )
    is_closed_now = (await connection.execute(closing)).rowcount == 1
    session = await _find_session(connection, integration, session_id)
    if session is None:
        return SessionAnswer(SessionResult.UNKNOWN_SESSION)
    return SessionAnswer(SessionResult.CLOSED if is_closed_now else SessionResult.ALREADY_CLOSED, session)


async def show_session(engine: AsyncEngine, integration: str, session_id: str) -> Session | None:
    """Return a session; None if there is none with this id. Raises LedgerUnavailable."""
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            return await _find_session(connection, integration, session_id)


def _empty_wallet(player_id: str, currency: str, kind: Wallet) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "player_id": player_id,
        "currency": currency,
        "kind": kind,
        "balance_minor": 0,
        "version": 0,
    }


async def _insert_missing(connection: AsyncConnection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless it exists or a concurrent transaction inserts it; return whether it was inserted."""
    on_postgresql = connection.dialect.name == "postgresql"
    insert = postgresql.insert(table) if on_postgresql else sqlite.insert(table)
    return (await connection.execute(insert.values(row).on_conflict_do_nothing())).rowcount == 1


_OWN_CURRENCY = select(players.c.currency).where(players.c.id == bindparam("player_id"))


async def _has_wallets(connection: AsyncConnection, player_id: str, currency: str) -> bool:
    kinds = select(wallets.c.kind).where(wallets.c.player_id == player_id, wallets.c.currency == currency)
    return bool((await connection.execute(kinds)).first())


async def _find_session(connection: AsyncConnection, integration: str, session_id: str) -> Session | None:
    found = select(sessions).where(sessions.c.integration == integration, sessions.c.id == session_id)
    row = (await connection.execute(found)).one_or_none()
    if row is None:
        return None
    closed_at = row.closed_at and utc(row.closed_at)
    return Session(row.integration, row.id, row.player_id, row.currency, utc(row.opened_at), closed_at)
