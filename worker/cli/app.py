"""The commands: from words to one call of the ledger, and from its answer to words and an exit code."""

import traceback
from typing import Annotated, Final

import msgspec
import typer
import uvloop

from shared.errors import LedgerUnavailable, MoneyError, SettingsError
from shared.logging import set_up_logging
from shared.money import Currencies
from shared.settings import Settings, load_settings
from worker import database, holders, process, reading
from worker.cli.ends import End, end, note
from worker.cli.ledger import ask, place
from worker.cli.output import plain, player_text, say, transfer_text
from worker.holders import Added, SessionAnswer, SessionResult

ID_CHARACTERS_MAX: Final = 128
"""As long as the providers' ids of players, sessions and transfers may be."""

app: Final = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Credit processor: the ledger worker, and the commands of who runs it. Settings come from the file"
    " that CREDITS_CONFIG names (default credits.toml) and from CREDITS_* variables.",
    epilog="Exit codes: 0 done, or yes; 1 no: not found, refused, or an invariant is broken; 2 wrong usage;"
    " 3 wrong settings, or tables that `migrate` must bring up to date; 4 no answer from the database;"
    " 5 not paid: no such transfer; 70 a defect of this program.",
)
player: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Players and their wallets.")
session: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Providers' wallet sessions.")
transfer: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Credits that were posted.")
app.add_typer(player, name="player")
app.add_typer(session, name="session")
app.add_typer(transfer, name="transfer")


def _checked_id(value: str) -> str:
    if not 1 <= len(value) <= ID_CHARACTERS_MAX or not value.isprintable():
        raise typer.BadParameter(f"an id has 1 to {ID_CHARACTERS_MAX} printable characters")
    return value


AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object, for programs.")]
PlayerId = Annotated[
    str, typer.Argument(metavar="ID", help="The operator's own id of the player.", callback=_checked_id)
]
SessionId = Annotated[str, typer.Argument(help="The provider's wallet session.", callback=_checked_id)]
Integration = Annotated[
    str, typer.Option(metavar="NAME", help="As in [integrations.NAME].", callback=_checked_id)
]


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    try:
        app(prog_name="python -m worker")
    except SettingsError as error:
        end(End.SETTINGS, str(error))
    except LedgerUnavailable as error:
        end(End.DATABASE, str(error))
    except Exception as error:  # noqa: BLE001  (a trace is no answer to an operator; the place helps who mends it)
        place_ = traceback.extract_tb(error.__traceback__)[-1]
        reason = next(iter(str(error).splitlines()), "")
        end(End.UNEXPECTED, f"{type(error).__name__}: {reason} ({place_.filename}:{place_.lineno})")


@app.command()
def run() -> None:
    """Serve credits from RabbitMQ until SIGTERM or SIGINT."""
    settings = load_settings()
    set_up_logging(settings.log)
    uvloop.run(process.run(settings))


@app.command()
def migrate() -> None:
    """Bring the tables to this version; harmless to repeat."""
    settings = load_settings().ledger
    before, after = ask(settings, database.migrate, migrated=False, patient=True)
    came = "was there already" if before == after else f"from {before or 'no tables'}"
    typer.echo(f"{place(settings)}: at revision {after}, {came}")


@player.command("add")
def add_player(
    player_id: PlayerId,
    currency: Annotated[str, typer.Option(help="ISO 4217, or one of [currencies].")],
    *,
    as_json: AsJson = False,
) -> None:
    """Add a player with a REAL and a BONUS wallet. Again with another currency: adds wallets in that."""
    settings = load_settings()
    _check_currency(settings, currency)
    added = ask(settings.ledger, lambda engine: holders.add_player(engine, player_id, currency))
    say(added, _ADDED[added.added].format(p=added), as_json=as_json)


_ADDED: Final = {
    Added.PLAYER: "player {p.player_id} added, with wallets in {p.wallets_currency}",
    Added.WALLETS: "player {p.player_id} has wallets in {p.wallets_currency} now; own currency: {p.currency}",
    Added.NOTHING: "player {p.player_id} had wallets in {p.wallets_currency}; own currency: {p.currency}",
}


@player.command("show")
def show_player(player_id: PlayerId, *, as_json: AsJson = False) -> None:
    """Show a player's wallets, balances and last transfers."""
    settings = load_settings()
    currencies = Currencies(settings.currencies)
    found = ask(settings.ledger, lambda engine: reading.show_player(engine, currencies, player_id))
    if found is None:
        end(End.NO, f"there is no player {player_id!r}")
    say(found, player_text(found), as_json=as_json)


@session.command("open")
def open_session(
    session_id: SessionId,
    integration: Integration,
    player_id: Annotated[str, typer.Option("--player", metavar="ID", callback=_checked_id)],
    currency: Annotated[str | None, typer.Option(help="Default: the player's own.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Open a provider's wallet session for a player."""
    settings = load_settings()
    if settings.integrations:
        _check_configured(settings, integration)
    else:
        note(f"no integration is configured here; {integration!r} is taken as it is")
    if currency is not None:
        _check_currency(settings, currency)
    answer = ask(
        settings.ledger,
        lambda engine: holders.open_session(engine, integration, session_id, player_id, currency),
    )
    _say_session(answer, f"session {session_id} of {integration}", as_json=as_json)


@session.command("close")
def close_session(session_id: SessionId, integration: Integration, *, as_json: AsJson = False) -> None:
    """Close a session. Wins of its rounds are owed, and paid, all the same."""
    answer = ask(
        load_settings().ledger, lambda engine: holders.close_session(engine, integration, session_id)
    )
    _say_session(answer, f"session {session_id} of {integration}", as_json=as_json)


def _say_session(answer: SessionAnswer, name: str, *, as_json: bool) -> None:
    code, words = _SESSION_ENDS[answer.result]
    text = words.format(name=plain(name), s=answer.session)
    if as_json or code is End.OK:
        say(answer, text, as_json=as_json)
    if code is not End.OK:
        end(code, text)


_SESSION_ENDS: Final = {
    SessionResult.OPENED: (End.OK, "{name} is open for player {s.player_id} in {s.currency}"),
    SessionResult.ALREADY_OPEN: (End.OK, "{name} is open already for player {s.player_id} in {s.currency}"),
    SessionResult.CLOSED: (End.OK, "{name} is closed"),
    SessionResult.ALREADY_CLOSED: (End.OK, "{name} is closed already"),
    SessionResult.ENDED: (End.NO, "{name} was closed and can't be opened again: an id names one session"),
    SessionResult.ANOTHERS: (
        End.NO,
        "{name} is of player {s.player_id} in {s.currency}, and that never changes",
    ),
    SessionResult.UNKNOWN_SESSION: (End.NO, "{name} is not known"),
    SessionResult.UNKNOWN_PLAYER: (End.NO, "{name}: there is no such player: `player add` adds one"),
    SessionResult.NO_WALLETS: (
        End.NO,
        "{name}: the player has no wallets in that currency: `player add` adds them",
    ),
}


class TransferAnswer(msgspec.Struct, frozen=True):
    """The answer to `transfer show`."""

    posted: bool
    integration: str
    provider_tx_id: str
    transfer: reading.TransferView | None


@transfer.command("show")
def show_transfer(
    provider_tx_id: Annotated[
        str, typer.Argument(help="The provider's id of the win.", callback=_checked_id)
    ],
    integration: Integration,
    *,
    as_json: AsJson = False,
) -> None:
    """Answer 'was this win paid?': the transfer, its entries, and what the provider said of it."""
    settings = load_settings()
    currencies = Currencies(settings.currencies)
    found = ask(
        settings.ledger,
        lambda engine: reading.show_transfer(engine, currencies, integration, provider_tx_id),
    )
    if found is None and settings.integrations:
        # A misspelt name must not look like an unpaid win. One that was configured once still finds its own.
        _check_configured(settings, integration)
    answer = TransferAnswer(found is not None, integration, provider_tx_id, found)
    if found is not None or as_json:
        say(answer, transfer_text(found) if found is not None else "", as_json=as_json)
    if found is None:
        end(End.NOT_PAID, f"not paid: no such transfer: {integration} has none with id {provider_tx_id!r}")


def _check_currency(settings: Settings, currency: str) -> None:
    try:
        Currencies(settings.currencies).exponent(currency)
    except MoneyError as error:
        end(End.USAGE, f"--currency: {error}")


def _check_configured(settings: Settings, integration: str) -> None:
    if integration not in settings.integrations:
        names = ", ".join(sorted(settings.integrations))
        end(End.USAGE, f"--integration: {integration!r} is not configured; configured: {names}")
