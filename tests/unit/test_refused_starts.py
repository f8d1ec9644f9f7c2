"""Wrong settings end every command with exit code 3 and one line: what holds the key, and no secret."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.__main__ import main as gateway
from worker.cli import main as worker

pytestmark = pytest.mark.usefixtures("clean_place")

COMMANDS: dict[str, Callable[[], None]] = {
    "": gateway,
    "sign klas": gateway,
    "demo": gateway,
    "run": worker,
    "operator": worker,
    "migrate": worker,
    "verify": worker,
    "player show anna": worker,
    "session show s --integration klas": worker,
    "transfer show w --integration klas": worker,
    "round show r --integration klas": worker,
    "ledger epoch": worker,
    "dead list": worker,
}
THAT_READ_THE_DATABASE = [c for c in COMMANDS if c not in {"sign klas", "run", "dead list"}]

FILE = """
[operator]
tokens = ["a-token-of-16-characters"]
[integrations.klas]
provider = "klas"
secrets = ["hunter2"]
"""

WRONG_EVERYWHERE: dict[str, dict[str, str]] = {
    "CREDITS_CONFIG": {"CREDITS_CONFIG": "/nowhere/credits.toml"},
    "CREDITS_CONFIG names '/'": {"CREDITS_CONFIG": "/"},
    "latin.toml: line 1": {"CREDITS_CONFIG": "latin.toml"},
    "broken.toml: ": {"CREDITS_CONFIG": "broken.toml"},
    "CREDITS_BROKR__URL": {"CREDITS_BROKR__URL": "amqp://me:hunter2@broker"},
    "CREDITS_BROKER__URL: [broker] url": {"CREDITS_BROKER__URL": "amqp://me:hunter2/x@broker"},
    "CREDITS_CACHE__URL: [cache] url": {"CREDITS_CACHE__URL": "redis://:hunter2@cache/0?family=0"},
    "CREDITS_GATEWAY__PORT: [gateway] port": {"CREDITS_GATEWAY__PORT": "99999"},
    "CREDITS_OPERATOR__TOKENS: [operator] tokens": {"CREDITS_OPERATOR__TOKENS": '["hunter2'},
    "CREDITS_CURRENCIES__mBTC: [currencies] mBTC": {"CREDITS_CURRENCIES__mBTC": "5"},
}

WRONG_DATABASES = [
    "postgresql+asyncpg://me:hunter2@127.0.0.1/db?sslmode=hunter2",
    "postgresql+asyncpg://me:hunter2@127.0.0.1/db?keepalives=1",
    "postgresql+asyncpg://me:hunter2@127.0.0.1/db?sslmode=verify-full&sslrootcert=/nowhere/ca.pem",
    "postgresql+asyncpg://me:hunt@er2@127.0.0.1/db",
    "postgresql+asyncpg://me:hunter2@127.0.0.1:99999/db",
    "postgresql://me:hunter2@127.0.0.1/db",
    "sqlite+aiosqlite:////proc/nowhere/credits.db",
]

Refuse = Callable[[str], str]


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a command that must be refused for its settings; return the line it says."""
    for place in ("gateway.__main__", "shared.logging"):  # logs are this test run's
        monkeypatch.setattr(f"{place}.set_up_logging", lambda _settings: None)
    Path("credits.toml").write_text(FILE)
    Path("latin.toml").write_bytes("# für\n".encode("latin-1"))
    Path("broken.toml").write_text('secret = "hunter2\n')

    def run(command: str) -> str:
        monkeypatch.setattr(sys, "argv", ["program", *command.split()])
        with pytest.raises(SystemExit) as ended:
            COMMANDS[command]()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (3, ""), err
        assert re.fullmatch(r"(credits|error): [^\n]+\n", err), err
        assert "hunt" not in err
        return err.partition(": ")[2]

    return run


@pytest.mark.parametrize("start", WRONG_EVERYWHERE)
def test_setting_that_is_wrong_for_everybody_ends_every_command(
    monkeypatch: pytest.MonkeyPatch, refuse: Refuse, start: str
) -> None:
    for name, value in WRONG_EVERYWHERE[start].items():
        monkeypatch.setenv(name, value)
    for command in COMMANDS:
        assert refuse(command).startswith(start), command


@pytest.mark.parametrize("url", WRONG_DATABASES)
def test_database_url_that_no_driver_takes_ends_every_command_that_reads_it(
    monkeypatch: pytest.MonkeyPatch, refuse: Refuse, url: str
) -> None:
    monkeypatch.setenv("CREDITS_LEDGER__DATABASE_URL", url)
    for command in THAT_READ_THE_DATABASE:
        assert refuse(command).startswith("CREDITS_LEDGER__DATABASE_URL: [ledger] database_url: "), command
    Path("credits.toml").write_text(f'{FILE}[ledger]\ndatabase_url = "{url}"\n')
    monkeypatch.delenv("CREDITS_LEDGER__DATABASE_URL")
    assert refuse("migrate").startswith("credits.toml: [ledger] database_url: ")


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ({"provider": "klass"}, "provider"),
        ({"secrets": []}, "secrets"),
        ({"secrets": "env:NOT_SET_ANYWHERE"}, "secrets"),
        ({"secrets": "file:/nowhere/secret"}, "secrets"),
        ({"secret": "hunter2"}, "secret"),
        ({"reply_within_seconds": "soon"}, "reply_within_seconds"),
    ],
)
def test_integration_that_is_wrong_is_named_with_file_or_variable_and_key(
    monkeypatch: pytest.MonkeyPatch, refuse: Refuse, table: dict[str, Any], key: str
) -> None:
    for command in ("", "sign klas"):
        for name, value in table.items():
            monkeypatch.setenv(f"CREDITS_INTEGRATIONS__KLAS__{name.upper()}", str(value))
        assert re.match(rf"CREDITS_INTEGRATIONS__KLAS__\w+: .*integrations\.klas\]? ?{key}\b", refuse(command))


def test_published_secret_beyond_loopback_is_named_with_its_file(
    monkeypatch: pytest.MonkeyPatch, refuse: Refuse
) -> None:
    Path("credits.toml").write_text(FILE.replace("hunter2", "klas-demo-secret"))
    monkeypatch.setenv("CREDITS_GATEWAY__HOST", "0.0.0.0")  # noqa: S104
    monkeypatch.setenv("CREDITS_OPERATOR__SERVED_AT", "10.0.0.1:8090")
    for command in ("", "demo", "operator"):
        assert refuse(command).startswith("credits.toml: [integrations.klas] secrets: is published"), command
