"""The commands as operators and their scripts call them: true answers, exit codes, one line when wrong.

Each is a process of its own, which takes its time to start: what differs between the databases runs on both,
the rest on SQLite.
"""

import json
import os
import subprocess
import sys
from asyncio import gather, to_thread
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.credit import Credit, Kind, Wallet
from tests.credits import win
from worker.cli.ends import End
from worker.database import head_revision
from worker.holders import add_player, open_session
from worker.ledger import Ledger

ROOT = Path(__file__).parents[2]

Run = Callable[..., Awaitable["Ended"]]


class Ended:
    """A command that has ended."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"

    def json(self) -> Any:
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    def error(self, code: End) -> str:
        """Return the one line that says what is wrong."""
        assert self.code == code, self
        *_, last = self.err.splitlines()
        assert last.startswith("error: "), self
        assert "Traceback" not in self.err
        return last


async def run(database_url: str, *arguments: str, **environment: str) -> Ended:
    """Run `python -m worker` on a database, with nothing set but what is given."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")}
    settings = {"CREDITS_CONFIG": "", "CREDITS_LEDGER__DATABASE_URL": database_url, **environment}
    return Ended(
        await to_thread(
            subprocess.run,
            [sys.executable, "-m", "worker", *arguments],
            cwd=ROOT,
            env={**inherited, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    )


ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def worker(engine: AsyncEngine) -> Run:
    """The command line on migrated tables, with player anna."""
    await add_player(engine, "anna", "EUR")
    url = engine.url.render_as_string(hide_password=False)

    async def run_here(*arguments: str, **environment: str) -> Ended:
        return await run(url, *arguments, **environment)

    return run_here


async def post(engine: AsyncEngine, *credits_: Credit) -> None:
    await Ledger(engine).post(credits_)


CONFIGURED = {
    "CREDITS_INTEGRATIONS__KLAS__PROVIDER": "klas",
    "CREDITS_INTEGRATIONS__ACE__PROVIDER": "igamingace",
}


async def test_help_lists_the_commands_and_every_exit_code() -> None:
    helped = await run("", "--help")
    assert helped.code == End.OK
    assert all(name in helped.out for name in ("run", "migrate", "player", "session", "transfer", "verify"))
    assert all(f" {code.value} " in " ".join(helped.out.split()) for code in End)


async def test_migrate_says_from_where_to_where(database_url: str) -> None:
    first = await run(database_url, "migrate")
    again = await run(database_url, "migrate")
    assert (first.code, again.code) == (End.OK, End.OK)
    assert f"at revision {head_revision()}, from no tables" in first.out
    assert f"at revision {head_revision()}, was there already" in again.out


async def test_missing_tables_are_told_with_the_command_that_makes_them(database_url: str) -> None:
    assert "run `python -m worker migrate`" in (await run(database_url, "verify")).error(End.SETTINGS)


@ON_SQLITE
async def test_worker_does_not_serve_without_its_tables(database_url: str) -> None:
    refused = await run(database_url, "run", CREDITS_BROKER__URL="amqp://127.0.0.1:1/")
    assert "run `python -m worker migrate`" in refused.error(End.SETTINGS)


@ON_SQLITE
async def test_adding_a_player_again_adds_only_what_is_missing(worker: Run) -> None:
    added = [
        (await worker("player", "add", "ben", "--currency", currency, "--json")).json()
        for currency in ("EUR", "EUR", "JPY", "JPY")
    ]
    assert [a["added"] for a in added] == ["player", "nothing", "wallets", "nothing"]
    assert {a["currency"] for a in added} == {"EUR"}, "the player's own currency never changes"
    shown = (await worker("player", "show", "ben", "--json")).json()
    assert [(w["kind"], w["balance"]["currency"]) for w in shown["wallets"]] == [
        ("REAL", "EUR"),
        ("BONUS", "EUR"),
        ("REAL", "JPY"),
        ("BONUS", "JPY"),
    ]


@ON_SQLITE
async def test_player_gets_wallets_only_in_currencies_that_can_be_paid(worker: Run) -> None:
    arguments = ("player", "add", "ben", "--currency", "BTC")
    assert "'BTC'" in (await worker(*arguments)).error(End.USAGE)
    assert (await worker(*arguments, CREDITS_CURRENCIES__BTC="8")).code == End.OK


async def test_player_is_shown_with_wallets_and_last_transfers(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, *(win(f"win-{n}", amount_minor=n) for n in range(12)))
    await post(engine, win("bonus", wallet=Wallet.BONUS, kind=Kind.FREE_SPIN))
    shown = (await worker("player", "show", "anna", "--json")).json()
    assert [(w["balance"], w["entries"]) for w in shown["wallets"]] == [
        ({"minor": 66, "currency": "EUR", "text": "0.66"}, 11),
        ({"minor": 1050, "currency": "EUR", "text": "10.50"}, 1),
    ]
    assert [t["provider_tx_id"] for t in shown["transfers"]] == [
        "bonus",
        *(f"win-{n}" for n in range(11, 2, -1)),
    ]
    assert shown["transfers"][0]["balance"]["text"] == "11.16"
    for_people = (await worker("player", "show", "anna")).out
    assert "10.50 EUR" in for_people
    assert "free_spin" in for_people


@ON_SQLITE
async def test_unknown_player_is_told(worker: Run) -> None:
    for arguments in (("player", "show", "nobody"), ("player", "show", "nobody", "--json")):
        shown = await worker(*arguments)
        assert "'nobody'" in shown.error(End.NO)
        assert not shown.out


@ON_SQLITE
async def test_session_is_opened_once_and_closed_once(worker: Run) -> None:
    opening = ("session", "open", "s", "--integration", "gpas", "--player", "anna", "--json")
    closing = ("session", "close", "s", "--integration", "gpas", "--json")
    ends = [await worker(*arguments) for arguments in (opening, opening, closing, closing, opening)]
    assert [e.code for e in ends] == [End.OK, End.OK, End.OK, End.OK, End.NO]
    answers = [e.json() for e in ends]
    assert [a["result"] for a in answers] == ["opened", "already_open", "closed", "already_closed", "ended"]
    assert answers[0]["session"]["currency"] == "EUR", "the player's own is the default"
    assert answers[2]["session"]["closed_at"] == answers[4]["session"]["closed_at"]


@ON_SQLITE
async def test_support_sees_whose_session_it_is(engine: AsyncEngine, worker: Run) -> None:
    await open_session(engine, "gpas", "s", "anna")
    shown = await worker("session", "show", "s", "--integration", "gpas")
    assert (shown.code, "anna" in shown.out, "EUR" in shown.out) == (End.OK, True, True)
    missing = await worker("session", "show", "s", "--integration", "klas")
    assert "session s of klas is not known" in missing.error(End.NO)


@ON_SQLITE
async def test_support_pages_through_what_a_player_won(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, *(win(f"w-{n}") for n in range(3)))
    listing = ("transfer", "list", "--player", "anna", "--limit", "2")
    first = await worker(*listing)
    *_, more = first.out.splitlines()
    assert more.startswith("there are more: --cursor=")
    second = await worker(*listing, more.removeprefix("there are more: "))
    assert ("w-0" in second.out, "w-1" in second.out, "there are more" in second.out) == (True, False, False)
    assert "--cursor: this is no cursor" in (await worker(*listing, "--cursor", "x")).error(End.USAGE)
    nobodys = await worker("transfer", "list", "--player", "nobody")
    assert "there is no player 'nobody'" in nobodys.error(End.NO)


@ON_SQLITE
async def test_transfer_is_found_by_our_own_id(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, win("w"))
    by_provider = await worker("transfer", "show", "w", "--integration", "klas", "--json")
    ours = by_provider.json()["transfer"]["transfer_id"]
    assert (await worker("transfer", "show", "--id", ours)).out.startswith("paid: 10.50 EUR to player anna")
    other = await worker("transfer", "show", "--id", "01a1fe25-4589-77e0-bd12-b262aa440f3e", "--json")
    assert "there is no transfer 01a1fe25" in other.error(End.NO)


@ON_SQLITE
async def test_session_never_changes_its_player_or_currency(worker: Run) -> None:
    for arguments in (("ben", "--currency", "EUR"), ("anna", "--currency", "JPY")):
        await worker("player", "add", *arguments)
    opening = ("session", "open", "s", "--integration", "gpas", "--player")
    await worker(*opening, "anna")
    for others in (("ben",), ("anna", "--currency", "JPY")):
        refused = await worker(*opening, *others)
        assert "player anna in EUR" in refused.error(End.NO)


@ON_SQLITE
async def test_session_needs_a_player_with_wallets(worker: Run) -> None:
    opening = ("session", "open", "s", "--integration", "gpas", "--player")
    assert "no such player" in (await worker(*opening, "nobody")).error(End.NO)
    assert "no wallets" in (await worker(*opening, "anna", "--currency", "JPY")).error(End.NO)
    closing = await worker("session", "close", "s", "--integration", "gpas")
    assert "not known" in closing.error(End.NO)


@ON_SQLITE
async def test_session_is_opened_only_for_a_configured_integration(worker: Run) -> None:
    opening = ("session", "open", "s", "--player", "anna", "--integration")
    assert "ace, klas" in (await worker(*opening, "klass", **CONFIGURED)).error(End.USAGE)
    assert (await worker(*opening, "klas", **CONFIGURED)).code == End.OK
    taken = await worker(*opening, "anything")
    assert (taken.code, "no integration is configured here" in taken.err) == (End.OK, True)


async def test_support_sees_everything_about_a_paid_win(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, win("before"), win("w", session_id="s", round_closed=True, details={"hash": "x"}))
    asking = ("transfer", "show", "--integration", "klas", "w")
    answer = (await worker(*asking, "--json")).json()
    transfer = answer["transfer"]
    eur = {"currency": "EUR"}
    assert answer["posted"] is True
    assert transfer["amount"] == transfer["real"] == {"minor": 1050, "text": "10.50", **eur}
    assert transfer["real_balance"] == {"minor": 2100, "text": "21.00", **eur}
    assert transfer["bonus"] == transfer["bonus_balance"] == {"minor": 0, "text": "0.00", **eur}
    assert [(e["account"], e["amount"]["minor"], e["wallet_version"]) for e in transfer["entries"]] == [
        ("REAL", 1050, 2),
        ("SETTLEMENT", -1050, None),
    ]
    facts = ("player_id", "kind", "round_id", "round_closed", "game_id", "bet_id", "session_id", "details")
    assert [transfer[name] for name in facts] == [
        "anna",
        "win",
        "round-1",
        True,
        "game-1",
        "bet-1",
        "s",
        {"hash": "x"},
    ]
    for_people = (await worker(*asking)).out
    assert for_people.startswith("paid: 10.50 EUR to player anna at ")
    told = (transfer["transfer_id"], transfer["entries"][0]["wallet_id"], "21.00 EUR", "round-1", "bet-1")
    assert all(fact in for_people for fact in told)


@ON_SQLITE
async def test_support_sees_that_a_lost_bet_paid_nothing(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, win("lost", amount_minor=0))
    asked = await worker("transfer", "show", "--integration", "klas", "lost")
    assert (asked.code, asked.out.startswith("recorded: a win of zero")) == (End.OK, True)


@ON_SQLITE
async def test_win_that_was_never_paid_has_an_exit_code_of_its_own(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, win("w"))
    asking = ("transfer", "show", "w", "--integration", "gpas")
    assert "not paid: no such transfer" in (await worker(*asking)).error(End.NOT_PAID)
    asked = await worker(*asking, "--json")
    assert (asked.code, asked.json()["posted"]) == (End.NOT_PAID, False)


@ON_SQLITE
async def test_misspelt_integration_does_not_look_like_an_unpaid_win(
    engine: AsyncEngine, worker: Run
) -> None:
    asking = ("transfer", "show", "w", "--integration")
    assert "ace, klas" in (await worker(*asking, "klass", **CONFIGURED)).error(End.USAGE)
    await post(engine, win("w", integration="retired"))
    assert (await worker(*asking, "retired", **CONFIGURED)).code == End.OK


@ON_SQLITE
async def test_provider_can_not_steer_the_terminal_of_support(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, win("w", round_id="[red]\x1b[2J", details={"a": "b\nc\u202e"}))
    shown = (await worker("transfer", "show", "--integration", "klas", "w")).out
    assert "[red]\\x1b[2J" in shown
    assert "b\\nc\\u202e" in shown


@ON_SQLITE
async def test_amount_in_a_currency_that_left_the_settings_is_still_shown(
    engine: AsyncEngine, worker: Run
) -> None:
    await worker("player", "add", "anna", "--currency", "BTC", CREDITS_CURRENCIES__BTC="8")
    await post(engine, win("w", currency="BTC", amount_minor=5))
    asking = ("transfer", "show", "--integration", "klas", "w")
    assert "5 minor units of BTC" in (await worker(*asking)).out
    assert "0.00000005 BTC" in (await worker(*asking, CREDITS_CURRENCIES__BTC="8")).out


async def test_support_sees_what_was_won_in_a_round_and_what_came_after_its_end(
    engine: AsyncEngine, worker: Run
) -> None:
    await add_player(engine, "ben", "EUR")
    await post(engine, win("first", round_id="r"), win("last", round_id="r", round_closed=True))
    await post(engine, win("after", round_id="r"), win("bens", round_id="r", player_id="ben"), win("other"))
    shown = await worker("round", "show", "r", "--integration", "klas", "--json")
    wins = {w["provider_tx_id"]: (w["closed_round"], w["after_round_closed"]) for w in shown.json()["wins"]}
    # Another player of the same round has not ended it.
    assert wins == {
        "first": (False, False),
        "last": (True, False),
        "after": (False, True),
        "bens": (False, False),
    }
    told = await worker("round", "show", "r", "--integration", "klas")
    assert told.out.startswith("round r of klas: 4 wins\n")
    assert "before this win, which was paid all the same" in told.out
    missing = await worker("round", "show", "nothing", "--integration", "klas")
    assert "no win of round 'nothing'" in missing.error(End.NO)


async def test_support_sees_what_else_was_sent_under_the_id_of_a_paid_win(
    engine: AsyncEngine, worker: Run
) -> None:
    await post(engine, win("w", amount_minor=100))
    for _ in range(2):
        await post(engine, win("w", amount_minor=200, round_id=None))
    shown = await worker("transfer", "show", "w", "--integration", "klas")
    assert "sent again with other content: nothing moved" in shown.out
    assert "amount_minor: 200" in shown.out
    conflicts = (await worker("transfer", "show", "w", "--integration", "klas", "--json")).json()["transfer"][
        "conflicts"
    ]
    assert [conflict["offered"] for conflict in conflicts] == [{"amount_minor": 200, "round_id": None}]


async def test_epoch_is_shown_and_bumped(engine: AsyncEngine, worker: Run) -> None:
    first = (await worker("ledger", "epoch", "--json")).json()["epoch"]
    assert first == await Ledger(engine).epoch()
    bumped = (await worker("ledger", "epoch", "--bump", "--json")).json()["epoch"]
    assert bumped == await Ledger(engine).epoch() != first


async def test_verify_is_content_only_when_the_books_hold(engine: AsyncEngine, worker: Run) -> None:
    await post(engine, win("w"))
    sound = await worker("verify", "--json")
    assert (sound.code, sound.json()["holds"], sound.json()["transfers"]) == (End.OK, True, 1)
    assert "paid  10.50 EUR" in (await worker("verify")).out
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE wallets SET balance_minor = 7 WHERE kind = 'BONUS'"))
    broken = await worker("verify")
    assert "wallet_balance" in broken.error(End.NO)
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
        assert "no answer from" in ended.error(End.DATABASE)
        assert len(ended.err.splitlines()) == 1
        assert "user:hunter2" not in ended.err


async def test_login_that_the_database_refuses_is_told(servers_url: str) -> None:
    ended = await run(servers_url, "verify")
    assert "no answer from" in ended.error(End.DATABASE)
    assert "hunter2" not in ended.err


@pytest.fixture
def servers_url(request: pytest.FixtureRequest) -> str:
    """A running PostgreSQL's URL with a password that is wrong, and a database that is not there."""
    address = str(request.getfixturevalue("servers").database_url).partition("@")[2].partition("/")[0]
    return f"postgresql+asyncpg://credits:hunter2@{address}/nowhere"


WRONG_SETTINGS = {
    "nowhere.toml": {"CREDITS_CONFIG": "nowhere.toml"},
    "[broker] url": {"CREDITS_BROKER__URL": "memory://"},
    "[ledger] database_url": {
        "CREDITS_BROKER__URL": "amqp://127.0.0.1:1/",
        "CREDITS_LEDGER__DATABASE_URL": "postgresql+asyncpg://user:hunter2@127.0.0.1:hunter2/db",
    },
}


async def test_wrong_settings_stop_a_worker_with_one_line() -> None:
    ends = await gather(*(run("sqlite+aiosqlite://", "run", **wrong) for wrong in WRONG_SETTINGS.values()))
    for told, ended in zip(WRONG_SETTINGS, ends, strict=True):
        assert told in ended.error(End.SETTINGS)
        assert "hunter2" not in ended.err
