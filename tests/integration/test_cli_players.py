"""`player` and `session`: who holds wallets is added, opened, closed and shown, and never changes hands."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.operations import Kind, Wallet
from tests.support.commands import CONFIGURED, ON_SQLITE, Run
from tests.support.credits import win
from tests.support.ledgers import post
from worker.cli.exit_codes import ExitCode
from worker.ledger.transaction import Ledger
from worker.players import open_session

pytestmark = [pytest.mark.slow, pytest.mark.any_server]


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
    assert "'BTC'" in (await worker(*arguments)).error(ExitCode.USAGE)
    assert (await worker(*arguments, CREDITS_CURRENCIES__BTC="8")).code == ExitCode.OK


async def test_player_is_shown_with_wallets_and_last_transfers(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), *(win(f"win-{n}", amount_minor=n) for n in range(12)))
    await post(Ledger(engine), win("bonus", wallet=Wallet.BONUS, kind=Kind.FREE_SPIN))
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
        assert "'nobody'" in shown.error(ExitCode.NO)
        assert not shown.out


@ON_SQLITE
async def test_session_is_opened_once_and_closed_once(worker: Run) -> None:
    opening = ("session", "open", "s", "--integration", "gpas", "--player", "anna", "--json")
    closing = ("session", "close", "s", "--integration", "gpas", "--json")
    ends = [await worker(*arguments) for arguments in (opening, opening, closing, closing, opening)]
    assert [e.code for e in ends] == [ExitCode.OK, ExitCode.OK, ExitCode.OK, ExitCode.OK, ExitCode.NO]
    answers = [e.json() for e in ends]
    assert [a["result"] for a in answers] == ["opened", "already_open", "closed", "already_closed", "ended"]
    assert answers[0]["session"]["currency"] == "EUR", "the player's own is the default"
    assert answers[2]["session"]["closed_at"] == answers[4]["session"]["closed_at"]


@ON_SQLITE
async def test_support_sees_whose_session_it_is(engine: AsyncEngine, worker: Run) -> None:
    await open_session(engine, "gpas", "s", "anna")
    shown = await worker("session", "show", "s", "--integration", "gpas")
    assert (shown.code, "anna" in shown.out, "EUR" in shown.out) == (ExitCode.OK, True, True)
    missing = await worker("session", "show", "s", "--integration", "klas")
    assert "session s of klas is not known" in missing.error(ExitCode.NO)


@ON_SQLITE
async def test_session_never_changes_its_player_or_currency(worker: Run) -> None:
    for arguments in (("ben", "--currency", "EUR"), ("anna", "--currency", "JPY")):
        await worker("player", "add", *arguments)
    opening = ("session", "open", "s", "--integration", "gpas", "--player")
    await worker(*opening, "anna")
    for others in (("ben",), ("anna", "--currency", "JPY")):
        refused = await worker(*opening, *others)
        assert "player anna in EUR" in refused.error(ExitCode.NO)


@ON_SQLITE
async def test_session_needs_a_player_with_wallets(worker: Run) -> None:
    opening = ("session", "open", "s", "--integration", "gpas", "--player")
    assert "no such player" in (await worker(*opening, "nobody")).error(ExitCode.NO)
    assert "no wallets" in (await worker(*opening, "anna", "--currency", "JPY")).error(ExitCode.NO)
    closing = await worker("session", "close", "s", "--integration", "gpas")
    assert "not known" in closing.error(ExitCode.NO)


@ON_SQLITE
async def test_session_is_opened_only_for_a_configured_integration(worker: Run) -> None:
    opening = ("session", "open", "s", "--player", "anna", "--integration")
    assert "ace, klas" in (await worker(*opening, "klass", **CONFIGURED)).error(ExitCode.USAGE)
    assert (await worker(*opening, "klas", **CONFIGURED)).code == ExitCode.OK
    taken = await worker(*opening, "anything")
    assert (taken.code, "no integration is configured here" in taken.err) == (ExitCode.OK, True)
