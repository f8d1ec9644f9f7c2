"""What several commands take: ids, names, the form of the answer."""

from typing import Annotated, Final

import typer

from shared.errors import MoneyError
from shared.money import Currencies
from shared.settings import Settings
from worker.cli.ends import End, end

ID_CHARACTERS_MAX: Final = 128
"""As long as the providers' ids of players, sessions and transfers may be."""


def checked_id(value: str) -> str:
    """Return an id that the books may hold. Raises typer.BadParameter."""
    if not 1 <= len(value) <= ID_CHARACTERS_MAX or not value.isprintable():
        raise typer.BadParameter(f"an id has 1 to {ID_CHARACTERS_MAX} printable characters")
    return value


AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object, for programs.")]
PlayerId = Annotated[
    str, typer.Argument(metavar="ID", help="The operator's own id of the player.", callback=checked_id)
]
SessionId = Annotated[str, typer.Argument(help="The provider's wallet session.", callback=checked_id)]
Integration = Annotated[
    str, typer.Option(metavar="NAME", help="As in [integrations.NAME].", callback=checked_id)
]


def check_currency(settings: Settings, currency: str) -> None:
    """End with USAGE unless the currency is known."""
    try:
        Currencies(settings.currencies).exponent(currency)
    except MoneyError as error:
        end(End.USAGE, f"--currency: {error}")


def check_configured(settings: Settings, integration: str) -> None:
    """End with USAGE unless the integration is configured."""
    if integration not in settings.integrations:
        names = ", ".join(sorted(settings.integrations))
        end(End.USAGE, f"--integration: {integration!r} is not configured; configured: {names}")
