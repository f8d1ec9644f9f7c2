"""`python -m gateway` serves HTTP; `sign` and `demo` help to try it."""

import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Final, NoReturn
from uuid import uuid4

import typer
import uvloop

from gateway.app import create_app
from gateway.providers.base import Win
from gateway.providers.registry import build
from gateway.samples import curl_line
from shared.errors import CreditsError, SettingsError
from shared.http import RefusalLog, serving
from shared.http import serve as serve_http
from shared.http.tls import server_context
from shared.logging import set_up_logging
from shared.money import Currencies
from shared.published import refuse_published_secrets
from shared.settings import MEMORY, Settings, load_settings
from shared.settings_sources import with_origin

SETTINGS_EXIT: Final = 3
UNEXPECTED_EXIT: Final = 70
"""The exit code of a defect of this program, EX_SOFTWARE of sysexits.h."""

DEMO_PLAYER: Final = "player01"
DEMO_SESSION: Final = "demo-session"

_OPERATIONS: Final = "[gateway] operations_host, operations_port"

cli = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@cli.callback(invoke_without_command=True)
def serve(context: typer.Context) -> None:
    """Serve HTTP until SIGTERM or SIGINT; requests that are under way are answered first."""
    if context.invoked_subcommand is None:
        uvloop.run(_serve(_settings_to_serve_with()))


def _settings_to_serve_with() -> Settings:
    settings = load_settings()
    refuse_published_secrets(settings, "gateway")
    set_up_logging(settings.log)
    return settings


async def _serve(settings: Settings, when_serving: Callable[[], None] | None = None) -> None:
    app, http = create_app(settings), settings.gateway
    refusals = RefusalLog(app.count_refusal)
    tls = server_context(http.tls_certificate, http.tls_key, "gateway")
    async with (
        app.lifespan_context(app),
        serving(
            app.operations,
            http.operations_host,
            http.operations_port,
            http,
            refusals=refusals,
            setting=_OPERATIONS,
        ),
    ):
        await serve_http(
            app,
            http.host,
            http.port,
            app.load_shedder,
            http,
            tls=tls,
            refusals=refusals,
            setting="[gateway] host, port",
            when_serving=when_serving,
            when_stopping=app.operations.stop,
            app_reports_trust=True,
        )


@cli.command()
def sign(  # noqa: PLR0913, PLR0917  (a command's options)
    integration: Annotated[str, typer.Argument(help="An integration's name, as in the settings.")],
    player: Annotated[str, typer.Option(help="Who wins; of gpas the session decides who, not this.")] = DEMO_PLAYER,
    session: Annotated[str, typer.Option(help="The session it was won in.")] = DEMO_SESSION,
    amount: Annotated[str, typer.Option(help="How much, as a decimal.")] = "10.50",
    currency: Annotated[str, typer.Option(help="Of what.")] = "EUR",
    tx_id: Annotated[str, typer.Option(help="The provider's id of the win, a UUID; a new one if left out.")] = "",
    url: Annotated[str, typer.Option(help="Where the gateway is; from the settings if left out.")] = "",
) -> None:
    """Print a win, signed as its provider signs, as a curl command."""
    settings = load_settings()
    set_up_logging(settings.log)
    win = Win(tx_id or str(uuid4()), player, session, amount, currency)
    typer.echo(_curl_line(settings, integration, win, url))


@cli.command()
def demo() -> None:
    """Serve with a demonstration player, and print a signed win for each integration."""
    settings = _settings_to_serve_with()
    uvloop.run(_prepare_demo(settings))
    uvloop.run(_serve(settings, when_serving=lambda: _print_demo(settings)))


def _print_demo(settings: Settings) -> None:
    typer.echo("Wins to paste into another terminal; paste one again, and it is answered but not paid again:\n")
    for name in settings.integrations:
        win = Win(str(uuid4()), DEMO_PLAYER, DEMO_SESSION)
        typer.echo(f"{_curl_line(settings, name, win)}; echo\n")
    typer.echo(
        f"Serving on {_base_url(settings)}; Ctrl-C ends it, and the balances are kept.\n"
        f"/healthz, /readyz and /metrics are on {_operations_url(settings)}."
    )


async def _prepare_demo(settings: Settings) -> None:
    """Create the tables, a player, and a session in each integration, where they are missing."""
    if settings.broker.url != MEMORY:
        raise SettingsError("[broker] url: the demonstration is embedded; leave it out")
    if settings.cells:
        raise SettingsError("[cells]: the demonstration has none; leave them out")
    from gateway.ledger_client.embedded import prepare  # noqa: PLC0415  (loads the worker's code, for this mode only)

    await prepare(settings, DEMO_PLAYER, "EUR", DEMO_SESSION)


def _curl_line(settings: Settings, integration: str, win: Win, url: str = "") -> str:
    table = settings.integrations.get(integration)
    if table is None:
        raise SettingsError(f"[integrations.{integration}]: there is no such integration")
    provider = build(integration, table, Currencies(settings.currencies))
    return curl_line(url or _base_url(settings), integration, provider.sample_request(win))


def _base_url(settings: Settings) -> str:
    scheme = "https" if settings.gateway.tls_certificate else "http"
    served_at = settings.gateway.served_at or settings.gateway.host
    host, _, port = served_at.rpartition(":") if served_at.count(":") == 1 else (served_at, "", "")
    return f"{scheme}://{host}:{port or settings.gateway.port}"


def _operations_url(settings: Settings) -> str:
    return f"http://{settings.gateway.operations_host}:{settings.gateway.operations_port}"


def main() -> None:
    """Run the command; an error becomes one line on standard error, and an exit code."""
    try:
        cli()
    except SettingsError as error:
        _fail(SETTINGS_EXIT, with_origin(str(error)))
    except CreditsError as error:
        _fail(SETTINGS_EXIT, str(error))
    except Exception as error:  # noqa: BLE001  (an operator can't use a traceback; its last line helps a developer)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        _fail(UNEXPECTED_EXIT, f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})")


def _fail(code: int, message: str) -> NoReturn:
    print(f"credits: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201  (the log may not be set up yet)
    sys.exit(code)


if __name__ == "__main__":
    main()
