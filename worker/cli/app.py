"""The commands: from words to one call of the ledger, and from its answer to words and an exit code."""

import traceback
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

import typer

from shared.cells import Part, cells_of, naming_cell, settings_of
from shared.errors import BrokerUnavailable, CursorError, LedgerRefused, LedgerUnavailable, SettingsError
from shared.published import refuse_published_secrets
from shared.settings import Settings, load_settings
from shared.settings_sources import with_origin
from worker.cli.audit import audit_log
from worker.cli.context import redacted_url
from worker.cli.dead_letters import dead
from worker.cli.exit_codes import ExitCode, fail
from worker.cli.grants import grants
from worker.cli.migrate import migrate_cells
from worker.cli.options import ActingAs, AsJson, Cell, actor_named
from worker.cli.players import player, session
from worker.cli.token import token
from worker.cli.transfers import ledger, round_, transfer
from worker.cli.verify import verify_cells
from worker.database.migration_lock import WAIT_SECONDS

app: Final = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Credit processor: the ledger worker, and the commands of who runs it. Settings come from the file"
    " that CREDITS_CONFIG names (default credits.toml) and from CREDITS_* variables.",
    epilog="Exit codes: 0 done, or yes; 1 no: not found, refused, or an invariant is broken; 2 wrong usage;"
    " 3 wrong settings, or tables that `migrate` must bring up to date; 4 no answer from the database;"
    " 5 not paid: no such transfer; 6 no answer from the broker; 70 a defect of this program.",
)
app.add_typer(player, name="player")
app.add_typer(session, name="session")
app.add_typer(transfer, name="transfer")
app.add_typer(round_, name="round")
app.add_typer(ledger, name="ledger")
app.add_typer(dead, name="dead")
app.command("grants")(grants)
app.add_typer(audit_log, name="audit")
app.add_typer(token, name="token")


def main() -> None:
    """Run the command that the process's arguments name, and exit with its code."""
    try:
        app(prog_name="python -m worker")
    except SettingsError as error:
        fail(ExitCode.SETTINGS, with_origin(str(error)))
    except CursorError as error:
        fail(ExitCode.USAGE, f"--cursor: {error}")
    except LedgerUnavailable as error:
        fail(ExitCode.DATABASE, str(error))
    except BrokerUnavailable as error:
        fail(ExitCode.BROKER, str(error))
    except Exception as error:  # noqa: BLE001  (a trace is no answer to an operator; the place helps who mends it)
        place_ = traceback.extract_tb(error.__traceback__)[-1]
        reason = next(iter(str(error).splitlines()), "")
        fail(ExitCode.UNEXPECTED, f"{type(error).__name__}: {reason} ({place_.filename}:{place_.lineno})")


@app.command()
def run(cell: Cell = None) -> None:
    """Serve credits of one cell from RabbitMQ until SIGTERM or SIGINT."""
    from worker.messaging import process  # noqa: PLC0415  (no other command waits for what speaks to the broker)

    own = settings_of(load_settings(), cell, *Part)
    with naming_cell(own.broker.cell):
        _serve(own, process.run)


@app.command()
def operator() -> None:
    """Serve the operator API over HTTP until SIGTERM or SIGINT."""
    from worker.operator.app import serve  # noqa: PLC0415  (no other command waits for a web server to load)

    settings = load_settings()
    refuse_published_secrets(settings, "operator")
    try:
        _serve(settings, serve)
    except LedgerRefused as error:
        raise SettingsError(f"[ledger] database_url: {_books(settings)}: {error}") from error
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"no answer from {_books(settings)}: {error}") from error


def _books(settings: Settings) -> str:
    """Return where the books are that gave no answer, for one line."""
    if len(cells_of(settings)) > 1:
        return "any cell"
    return redacted_url(settings_of(settings, None, Part.LEDGER).ledger)


def _serve(settings: Settings, serve: Callable[[Settings], Coroutine[Any, Any, None]]) -> None:
    import uvloop  # noqa: PLC0415  (nor for these)

    from shared.logging import set_up_logging  # noqa: PLC0415

    set_up_logging(settings.log)
    uvloop.run(serve(settings))


@app.command()
def migrate(
    *,
    wait: Annotated[
        int,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=86_400,
            help="How long to wait for whoever else migrates, or uses tables.",
        ),
    ] = WAIT_SECONDS,
    cell: Cell = None,
    acting_as: ActingAs = None,
) -> None:
    """Bring the tables to this version; harmless to repeat. Of several cells: of all.

    Then it is written down in each which integrations it serves, unless another cell's books have them.
    """
    migrate_cells(load_settings(), cell, actor_named(acting_as), wait_seconds=wait)


@app.command()
def verify(
    *,
    full: Annotated[bool, typer.Option("--full", help="Read everything again, not only what is new.")] = False,
    cell: Cell = None,
    as_json: AsJson = False,
) -> None:
    """Prove the books: exit 0 only when every invariant holds. Credits may be posted meanwhile.

    Reads what came since the last time that everything held, and every wallet. Rows that were verified before
    and were altered since behind the ledger's back are found by --full alone. Of several cells it proves
    each, and that no integration has wins in two.
    """
    verify_cells(load_settings(), cell, full=full, as_json=as_json)
