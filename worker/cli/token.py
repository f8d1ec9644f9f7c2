"""`token`: what a user of the operator API proves who they are with."""

import re
import secrets
from hashlib import sha256
from typing import Annotated, Final

import msgspec
import typer

from shared.settings import Role
from shared.settings_types import USER_NAME
from worker.cli.options import AsJson
from worker.cli.output import print_answer

token: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Tokens of the operator API's users.")

TOKEN_BYTES: Final = 32
"""Random bytes of a token: nobody guesses 256 bits, however often they try."""


class NewToken(msgspec.Struct, frozen=True):
    """The answer to `token new`."""

    name: str
    role: Role
    token: str
    token_sha256: str


def _user_name(value: str) -> str:
    if re.fullmatch(USER_NAME, value) is None:
        raise typer.BadParameter("a name has 1 to 63 lower-case letters, digits, - and _, a letter first")
    return value


@token.callback()
def _group() -> None:
    """Keep `new` a command of its own while it is the only one."""


@token.command("new")
def new_token(
    name: Annotated[str, typer.Argument(help="Whose it is.", callback=_user_name)],
    role: Annotated[Role, typer.Option(help="What they may do.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Make a token, show it this once, and show the settings that let it in.

    It is stored nowhere: the settings have its SHA-256. To replace a token, put the new one's SHA-256 beside
    the old one's, give the token to the user, and then remove the old.
    """
    made = f"credits_{secrets.token_urlsafe(TOKEN_BYTES)}"
    digest = sha256(made.encode()).hexdigest()
    text = f'token: {made}\n\n[operator.users.{name}]\nrole = "{role}"\ntoken_sha256 = ["{digest}"]'
    print_answer(NewToken(name, role, made, digest), text, as_json=as_json)
