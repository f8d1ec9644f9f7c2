"""`player` and `session`: who holds money, and the sessions in which they play."""

from typing import Annotated, Final

import typer

from shared.cells import Part
from shared.settings import load_settings
from worker import players
from worker.cli.cells import ask_cell, ask_cells, cell_to_change, end_if_elsewhere, read_cells, say_found
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
from worker.cli.output import plain, player_text, print_answer, session_text
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
    """Add a player with a REAL and a BONUS wallet. Again with another currency: adds wallets in that."""
    settings = load_settings()
    check_currency(settings, currency)
    own, by = cell_to_change(settings, cell, Part.LEDGER), actor_named(acting_as)
    added = ask_cell(own, lambda engine: players.add_player(engine, player_id, currency, by=by))
    print_answer(added, _ADDED[added.added].format(p=added), as_json=as_json)


_ADDED: Final = {
    Added.PLAYER: "player {p.player_id} added, with wallets in {p.wallets_currency}",
    Added.WALLETS: "player {p.player_id} has wallets in {p.wallets_currency} now; own currency: {p.currency}",
    Added.NOTHING: "player {p.player_id} had wallets in {p.wallets_currency}; own currency: {p.currency}",
}


@player.command("show")
def show_player(player_id: PlayerId, *, cell: Cell = None, as_json: AsJson = False) -> None:
    """Show a player's wallets, balances and last transfers."""
    answers = read_cells(load_settings(), cell, queries.show_player, player_id)
    missing = f"there is no player {player_id!r}"
    say_found(answers, player_text, missing, as_json=as_json, is_unique=False)


@session.command("show")
def show_session(
    session_id: SessionId, integration: Integration, *, cell: Cell = None, as_json: AsJson = False
) -> None:
    """Show whose a session is, in which currency, and whether it is open."""
    settings = load_settings()
    answers = ask_cells(settings, cell, lambda engine: players.show_session(engine, integration, session_id))
    if not (answers.found or answers.faults):
        end_if_elsewhere(settings, cell, integration)
    missing = f"session {plain(session_id)} of {plain(integration)} is not known"
    say_found(answers, session_text, missing, as_json=as_json)


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
    own, by = cell_to_change(settings, cell, Part.LEDGER, integration=integration), actor_named(acting_as)
    answer = ask_cell(
        own,
        lambda engine: players.open_session(engine, integration, session_id, player_id, currency, by=by),
    )
    _say_session(answer, f"session {session_id} of {integration}", as_json=as_json)


@session.command("close")
def close_session(
    session_id: SessionId,
    integration: Integration,
    *,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Close a session. Wins of its rounds are owed, and paid, all the same."""
    own = cell_to_change(load_settings(), cell, Part.LEDGER, integration=integration)
    by = actor_named(acting_as)
    answer = ask_cell(own, lambda engine: players.close_session(engine, integration, session_id, by=by))
    _say_session(answer, f"session {session_id} of {integration}", as_json=as_json)


def _say_session(answer: SessionAnswer, name: str, *, as_json: bool) -> None:
    code, words = _SESSION_ENDS[answer.result]
    text = words.format(name=plain(name), s=answer.session)
    if as_json or code is ExitCode.OK:
        print_answer(answer, text, as_json=as_json)
    if code is not ExitCode.OK:
        fail(code, text)


_SESSION_ENDS: Final = {
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
