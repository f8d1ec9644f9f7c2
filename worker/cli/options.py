"""The options and arguments that several commands share, and the checks of their values."""

import os
import pwd
from typing import Annotated

import typer

from shared.ids import refuse_id, refuse_round_id
from shared.money import Currencies
from shared.settings import Settings
from worker.cli.exit_codes import ExitCode, fail
from worker.database.audit_log import Actor, Via
from worker.queries.paging import LIMIT_MAX
from worker.validation import refuse_currency, refuse_integration


def checked_id(value: str) -> str:
    """Check an id and return it unchanged. Raises typer.BadParameter."""
    if (reason := refuse_id(value)) is not None:
        raise typer.BadParameter(reason)
    return value


def checked_round_id(value: str) -> str:
    """Check the id of a round and return it unchanged. Raises typer.BadParameter."""
    if (reason := refuse_round_id(value)) is not None:
        raise typer.BadParameter(reason)
    return value


def checked_if_given(value: str | None) -> str | None:
    """Check an id, if one is given, and return it unchanged. Raises typer.BadParameter."""
    return value if value is None else checked_id(value)


AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON object, for programs.")]
PlayerId = Annotated[
    str, typer.Argument(metavar="ID", help="The operator's own id of the player.", callback=checked_id)
]
SessionId = Annotated[str, typer.Argument(help="The provider's wallet session.", callback=checked_id)]
Integration = Annotated[str, typer.Option(metavar="NAME", help="As in [integrations.NAME].", callback=checked_id)]
Limit = Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help=f"The size of a page, up to {LIMIT_MAX}.")]
Cursor = Annotated[str | None, typer.Option(help="The next page, as the previous one named it.")]

Cell = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="CREDITS_CELL",
        help="As in [cells.NAME]; `main` is the cell of [broker] and [ledger].",
        callback=checked_if_given,
    ),
]

ActingAs = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        envvar="CREDITS_ACTOR",
        help="The user who acts, for the audit log, which also records the operating system's user.",
        callback=checked_if_given,
    ),
]


def actor_named(name: str | None) -> Actor:
    """Return the actor for the audit log: `name` with the operating system's user, or that user alone.

    The system's user is recorded beside the name because anyone may claim any name.
    """
    os_user = _os_user()
    return Actor(os_user, Via.CLI) if name is None else Actor(name, Via.CLI, os_user)


def _os_user() -> str:
    """Return the operating system's name of this process's user. Environment variables can't change it."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container whose user has only a number
        return f"uid {uid}"
    return name if refuse_id(name) is None else f"uid {uid}"


def check_currency(settings: Settings, currency: str) -> None:
    """Exit with USAGE unless the currency is known."""
    if (reason := refuse_currency(Currencies(settings.currencies), currency)) is not None:
        fail(ExitCode.USAGE, f"--currency: {reason}")


def check_configured(settings: Settings, integration: str) -> None:
    """Exit with USAGE if integrations are configured and this one is not among them."""
    if (reason := refuse_integration(settings, integration)) is not None:
        fail(ExitCode.USAGE, f"--integration: {reason}")
