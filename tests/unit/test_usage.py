"""A command that is typed wrong is told from one whose answer is no."""

import json
import tomllib
from hashlib import sha256

import pytest
from typer.testing import CliRunner

from shared.settings import OperatorSettings, OperatorUser, Role
from worker.cli.app import app
from worker.cli.exit_codes import ExitCode
from worker.operator.auth import TOKEN_CHARACTERS_MIN, Caller, Tokens

NEW_TOKEN = ["token", "new", "ben", "--role", "support"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("bogus",),
        ("player", "show"),
        ("player", "show", ""),
        ("player", "show", "line\nbreak"),
        ("player", "show", "x" * 129),
        ("player", "show", "anna", "--jsn"),
        ("player", "add", "anna"),
        ("session", "open", "s", "--player", "anna"),
        ("session", "open", "s", "--player", "anna", "--integration", ""),
        ("transfer", "show"),
        ("transfer", "show", "w"),
        ("transfer", "show", "--integration", "klas"),
        ("transfer", "show", "--id", "w"),
        ("transfer", "show", "w", "--id", "01a1fe25-4589-77e0-bd12-b262aa440f3e"),
        ("transfer", "list"),
        ("transfer", "list", "--player", "anna", "--limit", "501"),
        ("session", "show", "s"),
    ],
)
def test_wrong_usage_is_told_from_an_answer(arguments: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert (ended.exit_code, ended.stdout) == (ExitCode.USAGE, "")
    assert "Error" in ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "migrate",
        "verify",
        "player add",
        "session open",
        "transfer show",
        "audit list",
        "token new",
        "operator",
    ],
)
def test_every_command_explains_itself(command: str) -> None:
    ended = CliRunner().invoke(app, [*command.split(), "--help"])
    assert (ended.exit_code, ended.stderr) == (ExitCode.OK, "")
    assert f"Usage: root {command}" in ended.stdout


def test_token_of_a_user_is_made_anew_each_time_and_lets_in_whom_it_names() -> None:
    made = [json.loads(CliRunner().invoke(app, [*NEW_TOKEN, "--json"]).stdout) for _ in range(2)]
    assert made[0]["token"] != made[1]["token"]
    user = OperatorUser(role=made[0]["role"], token_sha256=(made[0]["token_sha256"],))
    tokens = Tokens(OperatorSettings(users={made[0]["name"]: user}))
    assert tokens.authenticate(f"Bearer {made[0]['token']}".encode()) == Caller("ben", Role.SUPPORT)


def test_token_is_printed_with_the_settings_that_let_it_in() -> None:
    first, _, *lines = CliRunner().invoke(app, NEW_TOKEN).stdout.splitlines()
    token = first.removeprefix("token: ")
    assert tomllib.loads("\n".join(lines))["operator"]["users"]["ben"] == {
        "role": "support",
        "token_sha256": [sha256(token.encode()).hexdigest()],
    }
    assert len(token) >= TOKEN_CHARACTERS_MIN
