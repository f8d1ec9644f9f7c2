"""`transfer` and `round`: support sees what was won, what was paid, and what was sent again."""

import random

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.ids import ID_CHARACTERS_MAX, ROUND_ID_BYTES_MAX, ROUND_ID_CHARACTERS_MAX, storable_round_id
from shared.outcome import OutcomeCode
from tests.support.commands import CONFIGURED, ON_SQLITE, Run
from tests.support.credits import win
from tests.support.ledgers import post
from worker.cli.exit_codes import ExitCode
from worker.ledger.transaction import Ledger
from worker.players import add_player

pytestmark = [pytest.mark.slow, pytest.mark.any_server]


@ON_SQLITE
async def test_support_pages_through_what_a_player_won(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), *(win(f"w-{n}") for n in range(3)))
    listing = ("transfer", "list", "--player", "anna", "--limit", "2")
    first = await worker(*listing)
    *_, more = first.out.splitlines()
    assert more.startswith("there are more: --cursor=")
    second = await worker(*listing, more.removeprefix("there are more: "))
    assert ("w-0" in second.out, "w-1" in second.out, "there are more" in second.out) == (True, False, False)
    assert "--cursor: this is no cursor" in (await worker(*listing, "--cursor", "x")).error(ExitCode.USAGE)
    nobodys = await worker("transfer", "list", "--player", "nobody")
    assert "there is no player 'nobody'" in nobodys.error(ExitCode.NO)


@ON_SQLITE
async def test_transfer_is_found_by_our_own_id(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), win("w"))
    by_provider = await worker("transfer", "show", "w", "--integration", "klas", "--json")
    ours = by_provider.json()["transfer"]["transfer_id"]
    assert (await worker("transfer", "show", "--id", ours)).out.startswith("paid: 10.50 EUR to player anna")
    other = await worker("transfer", "show", "--id", "01a1fe25-4589-77e0-bd12-b262aa440f3e", "--json")
    assert "there is no transfer 01a1fe25" in other.error(ExitCode.NO)


async def test_support_sees_everything_about_a_paid_win(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), win("before"), win("w", session_id="s", round_closed=True, details={"hash": "x"}))
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
    await post(Ledger(engine), win("lost", amount_minor=0))
    asked = await worker("transfer", "show", "--integration", "klas", "lost")
    assert (asked.code, asked.out.startswith("recorded: a win of zero")) == (ExitCode.OK, True)


@ON_SQLITE
async def test_win_that_was_never_paid_has_an_exit_code_of_its_own(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), win("w"))
    asking = ("transfer", "show", "w", "--integration", "gpas")
    assert "not paid: no such transfer" in (await worker(*asking)).error(ExitCode.NOT_PAID)
    asked = await worker(*asking, "--json")
    assert (asked.code, asked.json()["posted"]) == (ExitCode.NOT_PAID, False)


@ON_SQLITE
async def test_misspelt_integration_does_not_look_like_an_unpaid_win(engine: AsyncEngine, worker: Run) -> None:
    asking = ("transfer", "show", "w", "--integration")
    assert "ace, klas" in (await worker(*asking, "klass", **CONFIGURED)).error(ExitCode.USAGE)
    await post(Ledger(engine), win("w", integration="retired"))
    assert (await worker(*asking, "retired", **CONFIGURED)).code == ExitCode.OK


@ON_SQLITE
async def test_provider_can_not_steer_the_terminal_of_support(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), win("w", round_id="[red]\x1b[2J", details={"a": "b\nc\u202e"}))
    shown = (await worker("transfer", "show", "--integration", "klas", "w")).out
    assert "[red]\\x1b[2J" in shown
    assert "b\\nc\\u202e" in shown


@ON_SQLITE
async def test_amount_in_a_currency_that_left_the_settings_is_still_shown(engine: AsyncEngine, worker: Run) -> None:
    await worker("player", "add", "anna", "--currency", "BTC", CREDITS_CURRENCIES__BTC="8")
    await post(Ledger(engine), win("w", currency="BTC", amount_minor=5))
    asking = ("transfer", "show", "--integration", "klas", "w")
    assert "5 minor units of BTC" in (await worker(*asking)).out
    assert "0.00000005 BTC" in (await worker(*asking, CREDITS_CURRENCIES__BTC="8")).out


async def test_support_sees_what_was_won_in_a_round_and_what_came_after_its_end(
    engine: AsyncEngine, worker: Run
) -> None:
    await add_player(engine, "ben", "EUR")
    await post(Ledger(engine), win("first", round_id="r"), win("last", round_id="r", round_closed=True))
    await post(Ledger(engine), win("after", round_id="r"), win("bens", round_id="r", player_id="ben"), win("other"))
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
    assert "no win of round 'nothing'" in missing.error(ExitCode.NO)


async def test_support_sees_what_else_was_sent_under_the_id_of_a_paid_win(engine: AsyncEngine, worker: Run) -> None:
    await post(Ledger(engine), win("w", amount_minor=100))
    for _ in range(2):
        await post(Ledger(engine), win("w", amount_minor=200, round_id=None))
    shown = await worker("transfer", "show", "w", "--integration", "klas")
    assert "sent again with other content: nothing moved" in shown.out
    assert "amount_minor: 200" in shown.out
    conflicts = (await worker("transfer", "show", "w", "--integration", "klas", "--json")).json()["transfer"][
        "conflicts"
    ]
    assert [conflict["offered"] for conflict in conflicts] == [{"amount_minor": 200, "round_id": None}]


async def test_round_of_the_longest_and_oddest_id_that_was_paid_is_found(engine: AsyncEngine, worker: Run) -> None:
    odd = "\u00a0\u3000\u2028\u202e\u200d\U000e0001two\nlines\x7f%2f/"
    # As random as text can be: what repeats is kept small by PostgreSQL, which bounds what an index may hold.
    by_chance = random.Random(1)
    longest = odd + "".join(chr(by_chance.randrange(0x100, 0x7FF)) for _ in range(ROUND_ID_CHARACTERS_MAX))
    longest = longest.encode()[:ROUND_ID_BYTES_MAX].decode(errors="ignore")[:ROUND_ID_CHARACTERS_MAX]
    assert storable_round_id(longest) == longest
    player = "".join(chr(by_chance.randrange(0x20000, 0x2A6DF)) for _ in range(ID_CHARACTERS_MAX))
    await add_player(engine, player, "EUR")
    (posted,) = await post(Ledger(engine), win("w", round_id=longest, player_id=player))
    assert posted.code is OutcomeCode.POSTED
    shown = await worker("round", "show", longest, "--integration", "klas", "--json")
    assert [found["provider_tx_id"] for found in shown.json()["wins"]] == ["w"]
    too_long = await worker("round", "show", "x" * 1_001, "--integration", "klas")
    assert (too_long.code, "1 to 1000 characters" in too_long.err) == (ExitCode.USAGE, True)
