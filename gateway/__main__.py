"""`python -m gateway` serves HTTP; `sign` and `demo` help to try it."""

import signal
import sys
from typing import Final

import typer
import uvicorn
import uvloop

from gateway.app import create_app
from gateway.ledger_client import create_ledger_client
from shared.errors import CreditsError
from shared.logging import set_up_logging
from shared.settings import Settings, load_settings

DRAIN_SECONDS_MAX: Final = 15
SETTINGS_EXIT: Final = 3

cli = typer.Typer(add_completion=False, help=__doc__)


@cli.callback(invoke_without_command=True)
def serve(context: typer.Context) -> None:
    """Serve HTTP until SIGTERM or SIGINT; requests that are under way are answered first."""
    if context.invoked_subcommand is None:
        settings = load_settings()
        set_up_logging(settings.log)
        uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    ledger = create_ledger_client(settings)
    config = uvicorn.Config(
        create_app(settings, ledger),
        host=settings.gateway.host,
        port=settings.gateway.port,
        http="httptools",
        lifespan="off",  # the client is started here, where its faults become one clear line
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(sign, lambda _sign, _frame: None)
    async with ledger:
        await uvicorn.Server(config).serve()


def main() -> None:
    """Run the command; a fault is one line on standard error, and an exit code."""
    try:
        cli()
    except CreditsError as error:
        print(f"credits: {error}", file=sys.stderr)  # noqa: T201  (said before there is a log)
        sys.exit(SETTINGS_EXIT)


if __name__ == "__main__":
    main()
