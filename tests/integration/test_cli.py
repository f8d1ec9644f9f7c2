"""The commands as a whole: true answers, exit codes, one line when something is wrong.

Each is a process of its own, which takes its time to start: what differs between the databases runs on both,
the rest on SQLite.
"""

from asyncio import gather

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.commands import ON_SQLITE, Run, run
from tests.support.credits import win
from tests.support.ledgers import post
from worker.cli.exit_codes import ExitCode
from worker.database.migrate import head_revision
from worker.ledger.transaction import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.any_server]

BROKER = {
    "CREDITS_BROKER__URL": "amqp://127.0.0.1:1/",
    "CREDITS_BROKER__KEYS": '["env:CREDITS_TEST_BROKER_KEY"]',
    "CREDITS_TEST_BROKER_KEY": "a key of as many bytes as it takes",
}
"""A broker that nobody is at, and a key for it."""


async def test_help_lists_the_commands_and_every_exit_code() -> None:
    helped = await run("", "--help")
    assert helped.code == ExitCode.OK
    assert all(name in helped.out for name in ("run", "migrate", "player", "session", "transfer", "verify"))
    assert all(f" {code.value} " in " ".join(helped.out.split()) for code in ExitCode)


async def test_migrate_says_from_where_to_where(database_url: str) -> None:
    first = await run(database_url, "migrate")
    again = await run(database_url, "migrate")
    assert (first.code, again.code) == (ExitCode.OK, ExitCode.OK)
    assert f"at revision {head_revision()}, from no tables" in first.out
    assert f"at revision {head_revision()}, was there already" in again.out


async def test_missing_tables_are_told_with_the_command_that_makes_them(database_url: str) -> None:
    assert "run `python -m worker migrate`" in (await run(database_url, "verify")).error(ExitCode.SETTINGS)


@ON_SQLITE
async def test_worker_does_not_serve_without_its_tables(database_url: str) -> None:
    refused = await run(database_url, "run", **BROKER)
    assert "run `python -m worker migrate`" in refused.error(ExitCode.SETTINGS)


async def test_epoch_is_shown_and_bumped(engine: AsyncEngine, worker: Run) -> None:
    first = (await worker("ledger", "epoch", "--json")).json()["epoch"]
    assert first == await Ledger(engine).epoch()
    bumped = (await worker("ledger", "epoch", "--bump", "--json")).json()["epoch"]
    assert bumped == await Ledger(engine).epoch() != first


async def test_verify_is_content_only_when_the_books_hold(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), win("w"))
    sound = await worker("verify", "--json")
    assert (sound.code, sound.json()["holds"], sound.json()["transfers"]) == (ExitCode.OK, True, 1)
    assert "paid  10.50 EUR" in (await worker("verify")).out
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE wallets SET balance_minor = 7 WHERE kind = 'BONUS'"))
    broken = await worker("verify")
    assert "wallet_balance" in broken.error(ExitCode.NO)
    assert "BONUS" in broken.out
    findings = (await worker("verify", "--json")).json()["findings"]
    (case,) = [case for finding in findings for case in finding["cases"]]
    assert (case["player_id"], case["balance_minor"], case["entries_sum_minor"]) == ("anna", 7, 0)


UNREACHABLE = {
    "nobody listens": "postgresql+asyncpg://user:hunter2@127.0.0.1:1/db",
    "no such host": "postgresql+asyncpg://user:hunter2@host.invalid/db",
}


@pytest.mark.parametrize("url", UNREACHABLE.values(), ids=UNREACHABLE)
async def test_unreachable_database_is_told_in_one_line_without_its_password(url: str) -> None:
    for ended in await gather(run(url, "migrate"), run(url, "verify")):
        assert "no answer from" in ended.error(ExitCode.DATABASE)
        assert len(ended.err.splitlines()) == 1
        assert "user:hunter2" not in ended.err


async def test_login_that_the_database_refuses_is_told(servers_url: str) -> None:
    ended = await run(servers_url, "verify")
    assert "password authentication failed" in ended.error(ExitCode.SETTINGS)
    assert "hunter2" not in ended.err


@pytest.fixture
def servers_url(request: pytest.FixtureRequest) -> str:
    """A running PostgreSQL's URL with a password that is wrong, and a database that is not there."""
    address = str(request.getfixturevalue("servers").database_url).partition("@")[2].partition("/")[0]
    return f"postgresql+asyncpg://credits:hunter2@{address}/nowhere"


WRONG_SETTINGS = {
    "nowhere.toml": {"CREDITS_CONFIG": "nowhere.toml"},
    "[broker] url": {"CREDITS_BROKER__URL": "memory://"},
    "[broker] keys: there is none": {"CREDITS_BROKER__URL": "amqp://127.0.0.1:1/"},
    "[broker] keys: key 1 of 1 has 7 bytes": {
        "CREDITS_BROKER__URL": "amqp://127.0.0.1:1/",
        "CREDITS_BROKER__KEYS": '["hunter2"]',
    },
    "[ledger] database_url": {
        **BROKER,
        "CREDITS_LEDGER__DATABASE_URL": "postgresql+asyncpg://user:hunter2@127.0.0.1:hunter2/db",
    },
}


async def test_wrong_settings_stop_a_worker_with_one_line() -> None:
    ends = await gather(*(run("sqlite+aiosqlite://", "run", **wrong) for wrong in WRONG_SETTINGS.values()))
    for told, ended in zip(WRONG_SETTINGS, ends, strict=True):
        assert told in ended.error(ExitCode.SETTINGS)
        assert "hunter2" not in ended.err
