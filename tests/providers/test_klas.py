"""Klas Gaming: what it certifies, and its own ways."""

from typing import Any, Final
from uuid import uuid4

import msgspec
import pytest

from gateway.providers import klas
from gateway.providers.base import Callback
from gateway.providers.registry import build
from shared.money import Currencies
from simulator.dialects.base import body_of
from simulator.dialects.klas import DIALECT, signed_request
from simulator.dialects.values import Facts
from tests.providers.conformance import Conformance
from tests.providers.verbs import Verbs
from tests.support.stack import Stack

SUBTRACTING: Final = "klas-subtracting"
GENEROUS: Final = "klas-generous"
SUBTRACTED: Final = DIALECT.at(SUBTRACTING)
GIVEN: Final = DIALECT.at(GENEROUS)
INTEGRATIONS: Final = {
    SUBTRACTING: {**SUBTRACTED.settings, "deduction": "subtract"},
    GENEROUS: {**GIVEN.settings, "free_spin_wins": "real"},
}


class TestConformance(Conformance):
    dialect = DIALECT


class TestVerbs(Verbs):
    dialect = DIALECT
    codes = klas.STATUS_CODES


def _balance_request(facts: Facts, **changes: Any) -> Callback:
    fields = {
        "request_id": "1",
        "timestamp": 1_710_000_000,
        "session_id": facts.session_id,
        "player_id": facts.player_id,
    }
    return signed_request(body_of({**fields, **changes}), path="balance")


async def test_signature_in_capitals_is_accepted(stack: Stack, facts: Facts) -> None:
    right = DIALECT.credit(facts)
    capitals = {**right.headers, "x-signature": right.headers["x-signature"].upper()}
    response = await stack.send("klas", right._replace(headers=capitals))
    assert DIALECT.read_paid(response, facts, replay=False).balance == "10.5"


async def test_balance_is_what_the_player_has(stack: Stack, facts: Facts) -> None:
    assert DIALECT.exact_fields(await stack.send("klas", _balance_request(facts))) == {
        "balance": "0",
        "status_code": "OK",
    }
    await stack.send("klas", DIALECT.credit(facts))
    free_spin = facts.another(amount="0.25")
    await stack.send("klas", DIALECT.signed({**DIALECT.fields(free_spin), "gift_spin": {"n": 1}}, facts=facts))
    response = await stack.send("klas", _balance_request(facts, timestamp=1_710_000_000_123))
    assert DIALECT.exact_fields(response) == {"balance": "10.75", "status_code": "OK"}


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"player_id": "nobody"}, "unknown_player"),
        ({"player_id": None}, "malformed"),
        ({"player_id": 5}, "unknown_player"),
        ({"player_id": ""}, "malformed"),
        ({"player_id": "a\0b"}, "malformed"),
    ],
)
async def test_balance_of_nobody_is_an_error(stack: Stack, facts: Facts, changes: dict[str, Any], what: str) -> None:
    DIALECT.assert_error(await stack.send("klas", _balance_request(facts, **changes)), what, tx=None)


async def test_balance_needs_a_signature_and_a_ledger(stack: Stack, facts: Facts) -> None:
    request = _balance_request(facts)
    forged = request._replace(headers={"content-type": "application/json", "x-signature": "0" * 64})
    DIALECT.assert_error(await stack.send("klas", forged), "bad_signature", tx=None)
    with stack.unreachable():
        DIALECT.assert_error(await stack.send("klas", request), "unavailable", tx=None)


@pytest.mark.parametrize("timestamp", [1_710_000_000, 1_710_000_000_123, "1710000000", 0, 10**18])
async def test_timestamp_never_costs_a_win(stack: Stack, facts: Facts, timestamp: object) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "timestamp": timestamp}, facts=facts)
    DIALECT.read_paid(await stack.send("klas", request), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert posted.details["timestamp"] == str(timestamp)


async def test_free_spin_win_goes_to_the_bonus_wallet(stack: Stack, facts: Facts) -> None:
    spin = {**DIALECT.fields(facts), "gift_spin": {"campaign_id": 7, "spins": [1, 2.50]}}
    paid = DIALECT.read_paid(await stack.send("klas", DIALECT.signed(spin, facts=facts)), facts, replay=False)
    assert (paid.real_amount, paid.bonus_amount, paid.balance) == ("0", "10.5", "10.5")
    [posted] = await stack.transfers(facts.player_id)
    assert (posted.real_minor, posted.bonus_minor) == (0, 1050)
    assert msgspec.json.decode(posted.details["gift_spin"]) == {"campaign_id": 7, "spins": [1, 2.5]}


async def test_free_spin_win_goes_to_the_real_wallet_where_the_operator_says_so(stack: Stack, facts: Facts) -> None:
    spin = {**DIALECT.fields(facts), "gift_spin": {"spins": 1}}
    paid = GIVEN.read_paid(await stack.send(GENEROUS, GIVEN.signed(spin, facts=facts)), facts, replay=False)
    assert (paid.real_amount, paid.bonus_amount) == ("10.5", "0")


@pytest.mark.parametrize("gift_spin", [None, {}, [], "", " ", 0, "0", False])
async def test_empty_gift_spin_is_no_free_spin(stack: Stack, facts: Facts, gift_spin: object) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "gift_spin": gift_spin}, facts=facts)
    paid = DIALECT.read_paid(await stack.send("klas", request), facts, replay=False)
    assert (paid.real_amount, paid.bonus_amount) == ("10.5", "0")


@pytest.mark.parametrize(
    ("jackpot_wins", "recorded"),
    [("3.5", "3.5"), ({"grand": "3.5"}, '{"grand":"3.5"}'), (None, None), (3, "3")],
)
async def test_jackpot_is_in_the_amount_already(
    stack: Stack, facts: Facts, jackpot_wins: object, recorded: str | None
) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "jackpot_wins": jackpot_wins}, facts=facts)
    assert DIALECT.read_paid(await stack.send("klas", request), facts, replay=False).balance == "10.5"
    [posted] = await stack.transfers(facts.player_id)
    assert posted.details.get("jackpot_wins") == recorded


async def test_deduction_is_recorded_and_not_applied(stack: Stack, facts: Facts) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "deduction": "1.25"}, facts=facts)
    assert DIALECT.read_paid(await stack.send("klas", request), facts, replay=False).balance == "10.5"
    [posted] = await stack.transfers(facts.player_id)
    assert posted.details["deduction"] == "1.25"


@pytest.mark.parametrize(
    ("deduction", "balance"),
    [
        ("1.25", "9.25"),
        (1.25, "9.25"),
        ("1E1", "0.5"),
        ("10.50", "0"),
        (None, "10.5"),
        ("", "10.5"),
        (0, "10.5"),
        ("0.00", "10.5"),
        ([], "10.5"),
        ({}, "10.5"),
        (False, "10.5"),
    ],
)
async def test_deduction_is_subtracted_where_the_operator_says_so(
    stack: Stack, facts: Facts, deduction: object, balance: str
) -> None:
    request = SUBTRACTED.saying(facts, deduction=deduction)
    response = await stack.send(SUBTRACTING, request)
    assert SUBTRACTED.read_paid(response, facts, replay=False).balance == balance


@pytest.mark.parametrize("deduction", ["10.51", "-1", "1e2", "x", [1], {"a": 1}, True])
async def test_deduction_that_makes_no_sense_pays_nothing(stack: Stack, facts: Facts, deduction: object) -> None:
    request = SUBTRACTED.saying(facts, deduction=deduction)
    SUBTRACTED.assert_error(await stack.send(SUBTRACTING, request), "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("currency", ["USD", "XXQ", "eur", "EURO", ""])
async def test_win_in_a_currency_the_player_does_not_hold_is_not_paid(
    stack: Stack, facts: Facts, currency: str
) -> None:
    response = await stack.send("klas", DIALECT.credit(facts.but(currency=currency)))
    DIALECT.assert_error(response, "wrong_currency", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_yen_and_dinar_keep_their_own_decimals(stack: Stack, facts: Facts) -> None:
    for currency, amount, minor, balance in (("JPY", "120", 120, "120"), ("KWD", "1.234", 1234, "1.234")):
        player = facts.player_id + currency
        await stack.add_player(player, currency)
        win = facts.another(player_id=player, currency=currency, amount=amount)
        paid = DIALECT.read_paid(await stack.send("klas", DIALECT.credit(win)), win, replay=False)
        assert (paid.balance, await stack.balance(player, currency)) == (balance, minor)


@pytest.mark.parametrize("reason", ["BET", "bet", " Bet ", "BET\u200b", "GIFT_SPIN", "gift-spin"])
async def test_signed_bet_is_never_paid_as_a_win(stack: Stack, facts: Facts, reason: str) -> None:
    with stack.logged() as lines:
        response = await stack.send("klas", DIALECT.saying(facts, reason=reason, gift_spin={"id": 1}))
    DIALECT.assert_error(response, "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []
    [line] = [line for line in lines if line["event"] == "callback"]
    assert line["detail"] == "reason: a bet is not paid as a win"


@pytest.mark.parametrize("reason", [["BET"], {"reason": "BET"}, "win after a BET", "Ж" * 2_000])
async def test_reason_that_no_bet_has_costs_no_win(stack: Stack, facts: Facts, reason: object) -> None:
    response = await stack.send("klas", DIALECT.saying(facts, reason=reason))
    DIALECT.read_paid(response, facts, replay=False)


async def test_signed_refund_is_never_paid_as_a_win(stack: Stack, facts: Facts) -> None:
    said = {"reason": "REFUND", "reference_id": "refund-1"}
    refund = DIALECT.saying(facts, **said)
    fields = msgspec.json.decode(refund.body, type=dict[str, msgspec.Raw])
    del fields["round_completed"]
    response = await stack.send("klas", signed_request(body_of(fields)))
    DIALECT.assert_error(response, "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_half_of_a_surrogate_pair_is_recorded_as_an_escape(stack: Stack, facts: Facts) -> None:
    body = DIALECT.saying(facts, reason="won HALF", round_id="HALF").body.replace(b"HALF", rb"\ud83d")
    DIALECT.read_paid(await stack.send("klas", signed_request(body)), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert posted.details["reason"] == r'"won \u0000"'
    assert (posted.round_id, posted.details["round_id"]) == (None, r'"\u0000"')


async def test_win_with_a_reference_is_owed(stack: Stack, facts: Facts) -> None:
    response = await stack.send("klas", DIALECT.saying(facts, reference_id="any"))
    DIALECT.read_paid(response, facts, replay=False)


@pytest.mark.parametrize("amount", [msgspec.Raw(b"10.50"), msgspec.Raw(b"1.05E+1")])
async def test_amount_may_be_a_number(stack: Stack, facts: Facts, amount: object) -> None:
    response = await stack.send("klas", DIALECT.saying(facts, amount=amount))
    assert DIALECT.read_paid(response, facts, replay=False).balance == "10.5"


async def test_balance_of_a_player_whose_id_is_a_number(stack: Stack) -> None:
    digits = str(10**17 + uuid4().int % 10**17)
    await stack.add_player(digits, "EUR")
    for player_id in (int(digits), digits):
        request = signed_request(body_of({"player_id": player_id}), path="balance")
        assert DIALECT.exact_fields(await stack.send("klas", request))["status_code"] == "OK"


async def test_balance_needs_the_player_alone(stack: Stack, facts: Facts) -> None:
    response = await stack.send("klas", signed_request(body_of({"player_id": facts.player_id}), path="balance"))
    assert DIALECT.exact_fields(response)["status_code"] == "OK"


async def test_ids_that_can_not_be_looked_up_are_recorded(stack: Stack, facts: Facts) -> None:
    strange = {"round_id": [1], "game_code": "a\tb", "session_id": "s" * 129}
    await stack.send("klas", DIALECT.saying(facts, **strange))
    [posted] = await stack.transfers(facts.player_id)
    assert (posted.round_id, posted.game_id, posted.session_id) == (None, None, None)
    recorded = {"round_id": "[1]", "game_code": "a\tb", "session_id": "s" * 129}
    assert recorded.items() <= posted.details.items()


def test_blanks_around_the_signature_are_not_part_of_it() -> None:
    right = DIALECT.credit(Facts("p", "s"))
    blanks = {**right.headers, "x-signature": f" {right.headers['x-signature']}\t"}
    build("klas", DIALECT.settings, Currencies()).authenticate(right._replace(headers=blanks))
