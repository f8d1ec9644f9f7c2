"""The commands `player` and `session`: players with their wallets, and providers' wallet sessions."""

from typing import Annotated, Final

import typer

from shared.cells import Part
from shared.settings import load_settings
from worker import players
from worker.cli.cells import (
    call_in_cell,
    call_in_cells,
    cell_to_change,
    fail_if_served_elsewhere,
    print_found,
    query_cells,
)
from worker.cli.exit_codes import ExitCode, fail, warn
from worker.cli.options import (
    ActingAs,
    AsJson,
    Cell,
    Integration,
    PlayerId,
    SessionId,
    actor_named,
    check_configured,
    check_currency,
    checked_id,
)
from worker.cli.output import player_text, print_answer, printable, session_text
from worker.players import Added, SessionAnswer, SessionResult
from worker.queries import queries

player: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Players and their wallets.")
session: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Providers' wallet sessions.")


@player.command("add")
def add_player(
    player_id: PlayerId,
    currency: Annotated[str, typer.Option(help="ISO 4217, or one of [currencies].")],
    *,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Add a player with a REAL and a BONUS wallet, or add wallets in another currency to a known player."""
    settings = load_settings()
    check_currency(settings, currency)
    cell_settings, by = cell_to_change(settings, cell, Part.LEDGER), actor_named(acting_as)
    added = call_in_cell(cell_settings, lambda engine: players.add_player(engine, player_id, currency, by=by))
    print_answer(added, _ADDED[added.added].format(p=added), as_json=as_json)


_ADDED: Final = {
    Added.PLAYER: "player {p.player_id} added, with wallets in {p.wallets_currency}",
    Added.WALLETS: "player {p.player_id} has wallets in {p.wallets_currency} now; own currency: {p.currency}",
    Added.NOTHING: "player {p.player_id} had wallets in {p.wallets_currency}; own currency: {p.currency}",
}


@player.command("show")
def show_player(player_id: PlayerId, *, cell: Cell = None, as_json: AsJson = False) -> None:
    """Show a player's wallets, balances and latest transfers."""
    answers = query_cells(load_settings(), cell, queries.show_player, player_id)
    missing = f"there is no player {player_id!r}"
    print_found(answers, player_text, missing, as_json=as_json, is_unique=False)


@session.command("show")
def show_session(
    session_id: SessionId, integration: Integration, *, cell: Cell = None, as_json: AsJson = False
) -> None:
    """Show a session: its player, its currency, and whether it is open."""
    settings = load_settings()
    answers = call_in_cells(settings, cell, lambda engine: players.show_session(engine, integration, session_id))
    if not (answers.found or answers.faults):
        fail_if_served_elsewhere(settings, cell, integration)
    missing = f"session {printable(session_id)} of {printable(integration)} is not known"
    print_found(answers, session_text, missing, as_json=as_json)


@session.command("open")
def open_session(  # noqa: PLR0913  (each is an option)
    session_id: SessionId,
    integration: Integration,
    player_id: Annotated[
        str, typer.Option("--player", metavar="ID", help="The player who plays in it.", callback=checked_id)
    ],
    currency: Annotated[str | None, typer.Option(help="Default: the player's own.")] = None,
    *,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Open a provider's wallet session for a player."""
    settings = load_settings()
    check_configured(settings, integration)
    if not settings.integrations:
        warn(f"no integration is configured here; {integration!r} is taken as it is")
    if currency is not None:
        check_currency(settings, currency)
    cell_settings, by = cell_to_change(settings, cell, Part.LEDGER, integration=integration), actor_named(acting_as)
    answer = call_in_cell(
        cell_settings,
        lambda engine: players.open_session(engine, integration, session_id, player_id, currency, by=by),
    )
    _print_session(answer, f"session {session_id} of {integration}", as_json=as_json)


@session.command("close")
def close_session(
    session_id: SessionId,
    integration: Integration,
    *,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Close a session. Wins of its rounds are still owed, and are paid when they come."""
    cell_settings = cell_to_change(load_settings(), cell, Part.LEDGER, integration=integration)
    by = actor_named(acting_as)
    answer = call_in_cell(cell_settings, lambda engine: players.close_session(engine, integration, session_id, by=by))
    _print_session(answer, f"session {session_id} of {integration}", as_json=as_json)


def _print_session(answer: SessionAnswer, name: str, *, as_json: bool) -> None:
    code, template = _SESSION_ANSWERS[answer.result]
    text = template.format(name=printable(name), s=answer.session)
    if as_json or code is ExitCode.OK:
        print_answer(answer, text, as_json=as_json)
    if code is not ExitCode.OK:
        fail(code, text)


_SESSION_ANSWERS: Final = {
    SessionResult.OPENED: (ExitCode.OK, "{name} is open for player {s.player_id} in {s.currency}"),
    SessionResult.ALREADY_OPEN: (
        ExitCode.OK,
        "{name} is open already for player {s.player_id} in {s.currency}",
    ),
    SessionResult.CLOSED: (ExitCode.OK, "{name} is closed"),
    SessionResult.ALREADY_CLOSED: (ExitCode.OK, "{name} is closed already"),
    SessionResult.ENDED: (
        ExitCode.NO,
        "{name} was closed and can't be opened again: an id names one session",
    ),
    SessionResult.ANOTHERS: (
        ExitCode.NO,
        "{name} is of player {s.player_id} in {s.currency}, and that never changes",
    ),
    SessionResult.UNKNOWN_SESSION: (ExitCode.NO, "{name} is not known"),
    SessionResult.UNKNOWN_PLAYER: (ExitCode.NO, "{name}: there is no such player: `player add` adds one"),
    SessionResult.NO_WALLETS: (
        ExitCode.NO,
        "{name}: the player has no wallets in that currency: `player add` adds them",
    ),
}
