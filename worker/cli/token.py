"""The command `token`: creates tokens, with which users of the operator API authenticate."""

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
"""How many random bytes a token has: 256 bits can't be guessed."""


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
    """Keep `new` a subcommand: Typer merges a group's only command into the group."""


@token.command("new")
def new_token(
    name: Annotated[str, typer.Argument(help="The user's name.", callback=_user_name)],
    role: Annotated[Role, typer.Option(help="The user's role.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Create a token, print it once, and print the settings that accept it.

    The token is stored nowhere; the settings have its SHA-256. To replace a token, add the new one's SHA-256 to the
    user's settings, give the token to the user, and then remove the old SHA-256.
    """
    secret = f"credits_{secrets.token_urlsafe(TOKEN_BYTES)}"
    digest = sha256(secret.encode()).hexdigest()
    text = f'token: {secret}\n\n[operator.users.{name}]\nrole = "{role}"\ntoken_sha256 = ["{digest}"]'
    print_answer(NewToken(name, role, secret, digest), text, as_json=as_json)
