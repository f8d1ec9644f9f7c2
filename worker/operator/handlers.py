"""One function for each operation: a call of the service layer, and what its answer is in HTTP."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from shared.errors import LedgerUnavailable
from shared.ids import ID_CHARACTERS_MAX, refuse_id
from worker import audit_reading, holders, reading
from worker.audit_log import Actor
from worker.audit_reading import AuditQuery
from worker.holders import Added, SessionAnswer, SessionResult
from worker.names import (
    CURRENCY_PATTERN,
    ID_PATTERN,
    refuse_currency,
    refuse_integration,
)
from worker.operator.operation import Desk
from worker.operator.problems import Code, Refused, Reply, refusal
from worker.paging import Page

Id = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=ID_CHARACTERS_MAX, extra_json_schema={"pattern": ID_PATTERN}),
]
# Only told: one that is well formed and unknown, or not even that, has a problem of its own.
Currency = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": CURRENCY_PATTERN})]


class NewPlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a player is made with."""

    currency: Currency
    """ISO 4217, or one of [currencies]: of a new player their own; of a known one, of further wallets."""


class NewSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a session is opened with."""

    player_id: Id
    currency: Currency | None = None
    """Default: the player's own."""


class Status(msgspec.Struct, frozen=True):
    """The state of this process."""

    status: str


ADDED: Final[Mapping[Added, int]] = {Added.PLAYER: 201, Added.WALLETS: 200, Added.NOTHING: 200}

SESSION_ENDS: Final[Mapping[SessionResult, tuple[int | Code, str]]] = {
    SessionResult.OPENED: (201, ""),
    SessionResult.ALREADY_OPEN: (200, ""),
    SessionResult.CLOSED: (200, ""),
    SessionResult.ALREADY_CLOSED: (200, ""),
    SessionResult.ENDED: (Code.SESSION_ENDED, "it was closed at {s.closed_at:%Y-%m-%dT%H:%M:%SZ}"),
    SessionResult.ANOTHERS: (Code.SESSION_OF_ANOTHER, "it is of player {s.player_id!r} in {s.currency}"),
    SessionResult.UNKNOWN_SESSION: (Code.UNKNOWN_SESSION, "the integration has no session with this id"),
    SessionResult.UNKNOWN_PLAYER: (Code.UNKNOWN_PLAYER, "PUT /v1/players/{{player_id}} adds one"),
    SessionResult.NO_WALLETS: (Code.NO_WALLETS, "PUT /v1/players/{{player_id}} adds them"),
}


async def add_player(desk: Desk, player_id: str, body: NewPlayer, by: Actor) -> Reply:
    """Add a player, or wallets in another currency to one."""
    _check_currency(desk, body.currency)
    added = await holders.add_player(desk.engine, player_id, body.currency, by=by)
    return Reply(ADDED[added.added], added)


async def show_player(desk: Desk, player_id: str) -> Reply:
    """Show a player with wallets and last transfers."""
    return _of_player(await reading.show_player(desk.engine, desk.currencies, player_id), player_id)


async def show_wallets(desk: Desk, player_id: str) -> Reply:
    """Show a player's wallets."""
    return _of_player(await reading.show_wallets(desk.engine, desk.currencies, player_id), player_id)


async def show_balances(desk: Desk, player_id: str) -> Reply:
    """Show what a player has."""
    return _of_player(await reading.show_balances(desk.engine, desk.currencies, player_id), player_id)


async def list_transfers(desk: Desk, player_id: str, query: Page) -> Reply:
    """List a player's transfers."""
    page = await reading.list_transfers(desk.engine, desk.currencies, player_id, query)
    return _of_player(page, player_id)


async def show_transfer(desk: Desk, transfer_id: str) -> Reply:
    """Show the transfer that has our own id."""
    try:
        wanted = msgspec.convert(transfer_id, UUID)
    except msgspec.ValidationError:
        raise Refused(Code.INVALID_ID, "transfer_id: our own ids are UUIDs") from None
    found = await reading.show_transfer_by_id(desk.engine, desk.currencies, wanted)
    if found is None:
        return refusal(Code.UNKNOWN_TRANSFER, f"there is no transfer {wanted}")
    return Reply(200, found)


async def find_transfer(desk: Desk, integration: str, provider_tx_id: str) -> Reply:
    """Answer 'was this win paid?'."""
    found = await reading.show_transfer(desk.engine, desk.currencies, integration, provider_tx_id)
    if found.posted:
        return Reply(200, found)
    # A misspelt name must not look like an unpaid win. One that was configured once still finds its own.
    _check_configured(desk, integration)
    return refusal(Code.NOT_PAID, f"{integration!r} has no transfer with id {provider_tx_id!r}")


async def show_round(desk: Desk, integration: str, round_id: str, query: Page) -> Reply:
    """Show a round's wins."""
    found = await reading.show_round(desk.engine, desk.currencies, integration, round_id, query)
    if found is not None:
        return Reply(200, found)
    _check_configured(desk, integration)
    return refusal(Code.UNKNOWN_ROUND, f"no win of round {round_id!r} of {integration!r} is posted")


async def open_session(desk: Desk, integration: str, session_id: str, body: NewSession, by: Actor) -> Reply:
    """Open a session, unless it is open."""
    _check_configured(desk, integration)
    if (reason := refuse_id(body.player_id)) is not None:
        raise Refused(Code.INVALID_BODY, f"{reason} - at `$.player_id`")
    if body.currency is not None:
        _check_currency(desk, body.currency)
    answer = await holders.open_session(
        desk.engine,
        integration,
        session_id,
        body.player_id,
        body.currency,
        by=by,
        records_refusal=partial(_records_refusal, desk, by),
    )
    return _of_session(answer)


async def show_session(desk: Desk, integration: str, session_id: str) -> Reply:
    """Show a session."""
    found = await holders.show_session(desk.engine, integration, session_id)
    return Reply(200, found) if found else _of_session(SessionAnswer(SessionResult.UNKNOWN_SESSION))


async def close_session(desk: Desk, integration: str, session_id: str, by: Actor) -> Reply:
    """Close a session, unless it is closed."""
    answer = await holders.close_session(
        desk.engine, integration, session_id, by=by, records_refusal=partial(_records_refusal, desk, by)
    )
    return _of_session(answer)


async def list_audit(desk: Desk, query: AuditQuery) -> Reply:
    """List the audit log."""
    return Reply(200, await audit_reading.list_audit(desk.engine, query))


async def healthz(_desk: Desk) -> Reply:
    """Say that the process is up."""
    return Reply(200, Status("up"))


async def readyz(desk: Desk) -> Reply:
    """Say that the books answered a question just now."""
    if (obstacle := await desk.obstacle.get()) is not None:
        raise LedgerUnavailable(obstacle)
    return Reply(200, Status("ready"))


async def show_metrics(desk: Desk) -> Reply:
    """Return the counters."""
    return Reply(200, generate_latest(desk.metrics.registry), CONTENT_TYPE_LATEST)


def _records_refusal(desk: Desk, by: Actor) -> bool:
    """Tell whether a change that the books refuse is written down: the log of them only grows.

    Each is a request in the process log all the same.
    """
    if desk.throttle.allows(f"refused changes of {by.name}"):
        return True
    desk.metrics.unaudited_refusals.inc()
    return False


def _of_player(found: msgspec.Struct | None, player_id: str) -> Reply:
    if found is None:
        return refusal(Code.UNKNOWN_PLAYER, f"there is no player {player_id!r}")
    return Reply(200, found)


def _of_session(answer: SessionAnswer) -> Reply:
    end, words = SESSION_ENDS[answer.result]
    return refusal(end, words.format(s=answer.session)) if isinstance(end, Code) else Reply(end, answer)


def _check_currency(desk: Desk, currency: str) -> None:
    if (reason := refuse_currency(desk.currencies, currency)) is not None:
        raise Refused(Code.UNKNOWN_CURRENCY, reason)


def _check_configured(desk: Desk, integration: str) -> None:
    if (reason := refuse_integration(desk.settings, integration)) is not None:
        raise Refused(Code.UNKNOWN_INTEGRATION, reason)
