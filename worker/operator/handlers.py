"""One function for each operation: a call of the service layer, and what its answer is in HTTP."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Annotated, Final
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.currency_code import CURRENCY_PATTERN
from shared.errors import LedgerUnavailable
from shared.ids import ID_CHARACTERS_MAX, ID_JSON_PATTERN, refuse_id
from shared.money import Currencies
from shared.readiness import states_of
from worker import players
from worker.database.audit_log import Actor
from worker.operator.operation import Services
from worker.operator.problems import Code, Refused, Reply, refusal
from worker.players import Added, SessionAnswer, SessionResult
from worker.queries import audit_entries, queries
from worker.queries.audit_entries import AuditQuery
from worker.queries.paging import Page
from worker.queries.views import TransferAnswer, with_cell
from worker.validation import refuse_currency, refuse_integration

Id = Annotated[
    str,
    msgspec.Meta(min_length=1, max_length=ID_CHARACTERS_MAX, extra_json_schema={"pattern": ID_JSON_PATTERN}),
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
    cells: dict[str, str] | UnsetType = UNSET
    """Of several cells, "ready" or why the books don't answer."""


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


async def add_player(desk: Services, player_id: str, body: NewPlayer, by: Actor, cell: str | None) -> Reply:
    """Add a player, or wallets in another currency to one."""
    _check_currency(desk, body.currency)
    books = desk.cells.one(cell)
    added = await players.add_player(books.answer, player_id, body.currency, by=by)
    return Reply(ADDED[added.added], with_cell(added, books.cell))


async def show_player(desk: Services, player_id: str, cell: str | None) -> Reply:
    """Show a player with wallets and last transfers."""
    return await _of_player(desk, cell, player_id, queries.show_player)


async def show_wallets(desk: Services, player_id: str, cell: str | None) -> Reply:
    """Show a player's wallets."""
    return await _of_player(desk, cell, player_id, queries.show_wallets)


async def show_balances(desk: Services, player_id: str, cell: str | None) -> Reply:
    """Show what a player has."""
    return await _of_player(desk, cell, player_id, queries.show_balances)


async def list_transfers(desk: Services, player_id: str, query: Page, cell: str | None) -> Reply:
    """List a player's transfers."""
    return await _of_player(desk, cell, player_id, partial(queries.list_transfers, page=query))


async def show_transfer(desk: Services, transfer_id: str, cell: str | None) -> Reply:
    """Show the transfer that has our own id."""
    try:
        wanted = msgspec.convert(transfer_id, UUID)
    except msgspec.ValidationError:
        raise Refused(Code.INVALID_ID, "transfer_id: our own ids are UUIDs") from None
    found = await desk.cells.search(cell, lambda engine: queries.show_transfer_by_id(engine, desk.currencies, wanted))
    if found is None:
        return refusal(Code.UNKNOWN_TRANSFER, f"there is no transfer {wanted}")
    return Reply(200, with_cell(*found))


async def find_transfer(desk: Services, integration: str, provider_tx_id: str, cell: str | None) -> Reply:
    """Answer 'was this win paid?'."""

    async def find_posted(engine: AsyncEngine) -> TransferAnswer | None:
        answer = await queries.show_transfer(engine, desk.currencies, integration, provider_tx_id)
        return answer if answer.posted else None

    found = await desk.cells.search(cell, find_posted)
    if found is not None:
        return Reply(200, with_cell(*found))
    # A misspelt name must not look like an unpaid win. One that was configured once still finds its own.
    _check_configured(desk, integration)
    await desk.cells.refuse_elsewhere(cell, integration)
    return refusal(Code.NOT_PAID, f"{integration!r} has no transfer with id {provider_tx_id!r}")


async def show_round(desk: Services, integration: str, round_id: str, query: Page, cell: str | None) -> Reply:
    """Show a round's wins."""
    found = await desk.cells.search(
        cell, lambda engine: queries.show_round(engine, desk.currencies, integration, round_id, query)
    )
    if found is not None:
        return Reply(200, with_cell(*found))
    _check_configured(desk, integration)
    await desk.cells.refuse_elsewhere(cell, integration)
    return refusal(Code.UNKNOWN_ROUND, f"no win of round {round_id!r} of {integration!r} is posted")


async def open_session(  # noqa: PLR0913, PLR0917  (what a request has)
    desk: Services, integration: str, session_id: str, body: NewSession, by: Actor, cell: str | None
) -> Reply:
    """Open a session, unless it is open."""
    _check_configured(desk, integration)
    if (reason := refuse_id(body.player_id)) is not None:
        raise Refused(Code.INVALID_BODY, f"{reason} - at `$.player_id`")
    if body.currency is not None:
        _check_currency(desk, body.currency)
    books = desk.cells.one(cell, integration)
    answer = await players.open_session(
        books.answer,
        integration,
        session_id,
        body.player_id,
        body.currency,
        by=by,
        records_refusal=partial(_records_refusal, desk, by),
    )
    return _of_session(answer, books.cell)


async def show_session(desk: Services, integration: str, session_id: str, cell: str | None) -> Reply:
    """Show a session."""
    found = await desk.cells.search(cell, lambda engine: players.show_session(engine, integration, session_id))
    if found is None:
        await desk.cells.refuse_elsewhere(cell, integration)
        return _of_session(SessionAnswer(SessionResult.UNKNOWN_SESSION), None)
    return Reply(200, with_cell(*found))


async def close_session(desk: Services, integration: str, session_id: str, by: Actor, cell: str | None) -> Reply:
    """Close a session, unless it is closed."""
    books = desk.cells.one(cell, integration)
    answer = await players.close_session(
        books.answer, integration, session_id, by=by, records_refusal=partial(_records_refusal, desk, by)
    )
    return _of_session(answer, books.cell)


async def list_audit(desk: Services, query: AuditQuery, cell: str | None) -> Reply:
    """List the audit log, of one cell."""
    books = desk.cells.one(cell)
    return Reply(200, with_cell(await audit_entries.list_audit(books.answer, query), books.cell))


async def healthz(_desk: Services) -> Reply:
    """Say that the process is up."""
    return Reply(200, Status("up"))


async def readyz(desk: Services) -> Reply:
    """Say that the books answered a question just now."""
    obstacles = await desk.obstacles.get()
    if None not in obstacles.values():
        raise LedgerUnavailable("; ".join(str(obstacle) for obstacle in obstacles.values()))
    return Reply(200, Status("ready", states_of(obstacles) or UNSET))


async def show_metrics(desk: Services) -> Reply:
    """Return the counters."""
    return Reply(200, generate_latest(desk.metrics.registry), CONTENT_TYPE_LATEST)


def _records_refusal(desk: Services, by: Actor) -> bool:
    """Tell whether a change that the books refuse is written down: the log of them only grows.

    Each is a request in the process log all the same.
    """
    if desk.throttle.allows(f"refused changes of {by.name}"):
        return True
    desk.metrics.unaudited_refusals.inc()
    return False


async def _of_player(
    desk: Services,
    cell: str | None,
    player_id: str,
    question: Callable[[AsyncEngine, Currencies, str], Awaitable[msgspec.Struct | None]],
) -> Reply:
    """Answer about a player. In another cell the same id may be another person's."""
    found = await desk.cells.search(cell, lambda engine: question(engine, desk.currencies, player_id), is_unique=False)
    if found is None:
        return refusal(Code.UNKNOWN_PLAYER, f"there is no player {player_id!r}")
    return Reply(200, with_cell(*found))


def _of_session(answer: SessionAnswer, cell: str | None) -> Reply:
    end, words = SESSION_ENDS[answer.result]
    if isinstance(end, Code):
        return refusal(end, words.format(s=answer.session))
    return Reply(end, with_cell(answer, cell))


def _check_currency(desk: Services, currency: str) -> None:
    if (reason := refuse_currency(desk.currencies, currency)) is not None:
        raise Refused(Code.UNKNOWN_CURRENCY, reason)


def _check_configured(desk: Services, integration: str) -> None:
    if (reason := refuse_integration(desk.settings, integration)) is not None:
        raise Refused(Code.UNKNOWN_INTEGRATION, reason)
