"""A command that is typed wrong is told from one whose answer is no."""

import pytest
from typer.testing import CliRunner

from worker.cli.app import app
from worker.cli.ends import End


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
    assert (ended.exit_code, ended.stdout) == (End.USAGE, "")
    assert "Error" in ended.stderr


@pytest.mark.parametrize(
    "command", ["run", "migrate", "verify", "player add", "session open", "transfer show", "operator"]
)
def test_every_command_explains_itself(command: str) -> None:
    ended = CliRunner().invoke(app, [*command.split(), "--help"])
    assert (ended.exit_code, ended.stderr) == (End.OK, "")
    assert f"Usage: root {command}" in ended.stdout
