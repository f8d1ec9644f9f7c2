"""The handlers, one for each operation: each calls the service layer and turns its answer into a reply."""

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
from worker.operator.problems import Code, ProblemError, Reply, problem_reply
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
# The pattern is documented, not checked: an unknown or malformed currency is the problem `unknown_currency`.
Currency = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": CURRENCY_PATTERN})]


class NewPlayer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that adds a player."""

    currency: Currency
    """ISO 4217, or one of [currencies]: a new player's own, or that of further wallets for a known player."""


class NewSession(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request that opens a session."""

    player_id: Id
    currency: Currency | None = None
    """By default the player's own currency."""


class Status(msgspec.Struct, frozen=True):
    """The state of this process, for health checks."""

    status: str
    cells: dict[str, str] | UnsetType = UNSET
    """If there are several cells: of each "ready", or why its database can't be used."""


ADDED_STATUS: Final[Mapping[Added, int]] = {Added.PLAYER: 201, Added.WALLETS: 200, Added.NOTHING: 200}

SESSION_REPLIES: Final[Mapping[SessionResult, tuple[int | Code, str]]] = {
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


async def add_player(services: Services, player_id: str, body: NewPlayer, by: Actor, cell: str | None) -> Reply:
    """Add a player, or add wallets in another currency to a known one."""
    _check_currency(services, body.currency)
    engine, cell_name = services.cells.select_one(cell)
    added = await players.add_player(engine, player_id, body.currency, by=by)
    return Reply(ADDED_STATUS[added.added], with_cell(added, cell_name))


async def show_player(services: Services, player_id: str, cell: str | None) -> Reply:
    """Show a player with all wallets and the latest transfers."""
    return await _player_reply(services, cell, player_id, queries.show_player)


async def show_wallets(services: Services, player_id: str, cell: str | None) -> Reply:
    """Show a player's wallets."""
    return await _player_reply(services, cell, player_id, queries.show_wallets)


async def show_balances(services: Services, player_id: str, cell: str | None) -> Reply:
    """Show a player's balances, by currency."""
    return await _player_reply(services, cell, player_id, queries.show_balances)


async def list_transfers(services: Services, player_id: str, query: Page, cell: str | None) -> Reply:
    """List a player's transfers."""
    return await _player_reply(services, cell, player_id, partial(queries.list_transfers, page=query))


async def show_transfer(services: Services, transfer_id: str, cell: str | None) -> Reply:
    """Show a transfer by our own id."""
    try:
        id_ = msgspec.convert(transfer_id, UUID)
    except msgspec.ValidationError:
        raise ProblemError(Code.INVALID_ID, "transfer_id: our own ids are UUIDs") from None
    found = await services.cells.search(
        cell, lambda engine: queries.show_transfer_by_id(engine, services.currencies, id_)
    )
    if found is None:
        return problem_reply(Code.UNKNOWN_TRANSFER, f"there is no transfer {id_}")
    return Reply(200, with_cell(*found))


async def find_transfer(services: Services, integration: str, provider_tx_id: str, cell: str | None) -> Reply:
    """Show whether a win was paid: its transfer, or the problem `not_paid`."""

    async def find_posted(engine: AsyncEngine) -> TransferAnswer | None:
        answer = await queries.show_transfer(engine, services.currencies, integration, provider_tx_id)
        return answer if answer.posted else None

    found = await services.cells.search(cell, find_posted)
    if found is not None:
        return Reply(200, with_cell(*found))
    # Checked only now, because an integration that is no longer configured still has transfers. A misspelt name
    # must not look like an unpaid win.
    _check_integration(services, integration)
    await services.cells.refuse_if_served_elsewhere(cell, integration)
    return problem_reply(Code.NOT_PAID, f"{integration!r} has no transfer with id {provider_tx_id!r}")


async def show_round(services: Services, integration: str, round_id: str, query: Page, cell: str | None) -> Reply:
    """Show a round's wins."""
    found = await services.cells.search(
        cell, lambda engine: queries.show_round(engine, services.currencies, integration, round_id, query)
    )
    if found is not None:
        return Reply(200, with_cell(*found))
    _check_integration(services, integration)
    await services.cells.refuse_if_served_elsewhere(cell, integration)
    return problem_reply(Code.UNKNOWN_ROUND, f"no win of round {round_id!r} of {integration!r} is posted")


async def open_session(  # noqa: PLR0913, PLR0917  (each is a part of the request)
    services: Services, integration: str, session_id: str, body: NewSession, by: Actor, cell: str | None
) -> Reply:
    """Open a session, unless it is open."""
    _check_integration(services, integration)
    if (reason := refuse_id(body.player_id)) is not None:
        raise ProblemError(Code.INVALID_BODY, f"{reason} - at `$.player_id`")
    if body.currency is not None:
        _check_currency(services, body.currency)
    engine, cell_name = services.cells.select_one(cell, integration)
    answer = await players.open_session(
        engine,
        integration,
        session_id,
        body.player_id,
        body.currency,
        by=by,
        records_refusal=partial(_may_record_refusal, services, by),
    )
    return _session_reply(answer, cell_name)


async def show_session(services: Services, integration: str, session_id: str, cell: str | None) -> Reply:
    """Show a session."""
    found = await services.cells.search(cell, lambda engine: players.show_session(engine, integration, session_id))
    if found is None:
        await services.cells.refuse_if_served_elsewhere(cell, integration)
        return _session_reply(SessionAnswer(SessionResult.UNKNOWN_SESSION), None)
    return Reply(200, with_cell(*found))


async def close_session(services: Services, integration: str, session_id: str, by: Actor, cell: str | None) -> Reply:
    """Close a session, unless it is closed."""
    engine, cell_name = services.cells.select_one(cell, integration)
    answer = await players.close_session(
        engine, integration, session_id, by=by, records_refusal=partial(_may_record_refusal, services, by)
    )
    return _session_reply(answer, cell_name)


async def list_audit(services: Services, query: AuditQuery, cell: str | None) -> Reply:
    """List the audit log of one cell."""
    engine, cell_name = services.cells.select_one(cell)
    return Reply(200, with_cell(await audit_entries.list_audit(engine, query), cell_name))


async def healthz(_services: Services) -> Reply:
    """Reply that the process is up."""
    return Reply(200, Status("up"))


async def readyz(services: Services) -> Reply:
    """Reply that the database of a cell answered just now. Raises LedgerUnavailable."""
    obstacles = await services.obstacles.get()
    if None not in obstacles.values():
        raise LedgerUnavailable("; ".join(str(obstacle) for obstacle in obstacles.values()))
    return Reply(200, Status("ready", states_of(obstacles) or UNSET))


async def show_metrics(services: Services) -> Reply:
    """Reply with the metrics in the text format of Prometheus."""
    return Reply(200, generate_latest(services.metrics.registry), CONTENT_TYPE_LATEST)


def _may_record_refusal(services: Services, by: Actor) -> bool:
    """Return whether the audit log records a change that was refused.

    The throttle limits how often, because the audit log only grows. The process log has each request anyway.
    """
    if services.throttle.allows(f"refused changes of {by.name}"):
        return True
    services.metrics.unaudited_refusals.inc()
    return False


async def _player_reply(
    services: Services,
    cell: str | None,
    player_id: str,
    query: Callable[[AsyncEngine, Currencies, str], Awaitable[msgspec.Struct | None]],
) -> Reply:
    """Reply with a query's answer about a player. An id isn't unique: another cell may have another person under it."""
    found = await services.cells.search(
        cell, lambda engine: query(engine, services.currencies, player_id), is_unique=False
    )
    if found is None:
        return problem_reply(Code.UNKNOWN_PLAYER, f"there is no player {player_id!r}")
    return Reply(200, with_cell(*found))


def _session_reply(answer: SessionAnswer, cell: str | None) -> Reply:
    status_or_code, detail = SESSION_REPLIES[answer.result]
    if isinstance(status_or_code, Code):
        return problem_reply(status_or_code, detail.format(s=answer.session))
    return Reply(status_or_code, with_cell(answer, cell))


def _check_currency(services: Services, currency: str) -> None:
    if (reason := refuse_currency(services.currencies, currency)) is not None:
        raise ProblemError(Code.UNKNOWN_CURRENCY, reason)


def _check_integration(services: Services, integration: str) -> None:
    if (reason := refuse_integration(services.settings, integration)) is not None:
        raise ProblemError(Code.UNKNOWN_INTEGRATION, reason)
