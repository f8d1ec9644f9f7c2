"""Who holds money: players, their wallets, and the sessions in which they play.

Every call may be repeated: what is there already is left as it is, and the answer says so. What changes, and
what is refused, is in the audit log, written in the same transaction.
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
    """What `add_player` had to add."""

    PLAYER = "player"
    WALLETS = "wallets"
    """The player was there, without wallets in this currency."""

    NOTHING = "nothing"


class PlayerAdded(msgspec.Struct, frozen=True):
    """The answer to `add_player`."""

    player_id: str
    currency: str
    """The player's own, which the first call decided; the wallets may be in another."""

    wallets_currency: str
    added: Added


class SessionResult(StrEnum):
    """Every end of `open_session` and `close_session`."""

    OPENED = "opened"
    ALREADY_OPEN = "already_open"
    CLOSED = "closed"
    ALREADY_CLOSED = "already_closed"
    ENDED = "ended"
    """Closed earlier, and not opened again: an id names one session, and a late repeat must not revive it."""

    ANOTHERS = "anothers"
    """The id names a session of another player or in another currency, which never changes."""

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
    """The answer to `open_session` and `close_session`: the session as it is now, if there is one."""

    result: SessionResult
    session: Session | None = None


_UNCHANGED = {SessionResult.ALREADY_OPEN, SessionResult.ALREADY_CLOSED}
_CHANGED = {SessionResult.OPENED, SessionResult.CLOSED}


def _always() -> bool:
    return True


def _is_recorded(result: SessionResult, records_refusal: Callable[[], bool]) -> bool:
    """Tell whether an answer is written down: each change is, and a refusal if the caller says so."""
    return result in _CHANGED or (result not in _UNCHANGED and records_refusal())


async def add_player(engine: AsyncEngine, player_id: str, currency: str, *, by: Actor = PROCESS) -> PlayerAdded:
    """Add a player with a REAL and a BONUS wallet in `currency`, or whatever of that is missing.

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


async def open_session(  # noqa: PLR0913  (who acts comes last, and may be left out)
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
    wanted = currency or own_currency
    if not await _has_wallets(connection, player_id, wanted):
        return SessionAnswer(SessionResult.NO_WALLETS)
    session = {
        "integration": integration,
        "id": session_id,
        "player_id": player_id,
        "currency": wanted,
        "opened_at": datetime.now(UTC),
    }
    new = await _insert_missing(connection, sessions, session)
    there = await _find_session(connection, integration, session_id)
    if there is None or (there.player_id, there.currency) != (player_id, wanted):
        return SessionAnswer(SessionResult.ANOTHERS, there)
    if there.closed_at is not None:
        return SessionAnswer(SessionResult.ENDED, there)
    return SessionAnswer(SessionResult.OPENED if new else SessionResult.ALREADY_OPEN, there)


async def close_session(
    engine: AsyncEngine,
    integration: str,
    session_id: str,
    *,
    by: Actor = PROCESS,
    records_refusal: Callable[[], bool] = _always,
) -> SessionAnswer:
    """Close a session. Wins of its rounds are owed, and paid, all the same. Raises LedgerUnavailable."""
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
    closed = (await connection.execute(closing)).rowcount == 1
    there = await _find_session(connection, integration, session_id)
    if there is None:
        return SessionAnswer(SessionResult.UNKNOWN_SESSION)
    return SessionAnswer(SessionResult.CLOSED if closed else SessionResult.ALREADY_CLOSED, there)


async def show_session(engine: AsyncEngine, integration: str, session_id: str) -> Session | None:
    """Return a session; None if there is no such. Raises LedgerUnavailable."""
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
    """Insert unless it is there, or is being inserted by somebody else; tell whether it is new."""
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
