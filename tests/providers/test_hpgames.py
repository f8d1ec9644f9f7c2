"""HPGames: what it certifies, and its own ways; bulk requests are in `test_hpgames_bulk.py`."""

from typing import Any, Final
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import hpgames
from gateway.providers.registry import build
from shared.errors import SettingsError
from shared.money import Currencies
from simulator.dialects.base import FOREIGN_KEY, body_of
from simulator.dialects.hpgames import DIALECT, MERCHANT, sent
from simulator.dialects.values import Facts
from tests.providers.conformance import Conformance
from tests.providers.verbs import Verbs
from tests.support.stack import Stack

PUBLISHED_REQUEST: Final[dict[str, Any]] = {
    "merchantId": MERCHANT,
    "timestamp": 1773935126789,
    "betId": "3f9c2d1a-8b7e-4c5d-a123-6f9e2b7d8c11",
    "transactionId": "9c8b7a6d-5e4f-3210-a987-6b5c4d3e2f11",
    "amount": msgspec.Raw(b"5.0"),
    "currency": "EUR",
    "created": "2026-03-19T15:46:10.654321Z",
    "gameId": 1,
    "type": "REWARD",
    "rewardId": "a9f1c2d3-4b5e-6789-8abc-def012345678",
    "rewardType": "FREE_BET",
    "authToken": "5f6e7d8c-9b0a-4c3d-8e1f-2a3b4c5d6e7f",
    "playerId": "c8d9e0f1-2345-4a6b-8c9d-0e1f2a3b4c5d",
}
CONFIRMED: Final = "hpgames-confirmed"
SURE: Final = DIALECT.at(CONFIRMED)
PUBLISHED: Final = "hpgames-published"
INTEGRATIONS: Final = {
    CONFIRMED: {**SURE.settings, "error_codes": {"conflict": 4711, "bad_signature": 4712}},
    PUBLISHED: {**DIALECT.settings, "secrets": ["secretkey"]},
}


class TestConformance(Conformance):
    dialect = DIALECT


class TestVerbs(Verbs):
    dialect = DIALECT
    codes = hpgames.ERROR_CODES


async def test_published_example_is_paid_with_the_hash_of_its_number(stack: Stack, facts: Facts) -> None:
    win = facts.but(provider_tx_id=PUBLISHED_REQUEST["transactionId"])
    for written, published, replay in (
        ("5.0", "109407b0e932b909cf487595072fb0a207fcffe5a41162460680e50c828b3b1a", False),
        ("5", "bc3b1668e4b796658eae31e02d9d546ee47808463278acbcd3248c35047feefe", True),
    ):
        fields = {**PUBLISHED_REQUEST, "playerId": facts.player_id, "hash": published}
        otherwise = sent(body_of({**fields, "amount": msgspec.Raw(b"5.00")}))
        DIALECT.assert_error(await stack.send(PUBLISHED, otherwise), "bad_signature", tx=win.provider_tx_id)
        example = sent(body_of({**fields, "amount": msgspec.Raw(written.encode())}))
        paid = DIALECT.read_paid(await stack.send(PUBLISHED, example), win, replay=replay)
        assert paid.balance == "5"


async def test_every_spelling_of_a_number_is_paid_with_its_own_hash(stack: Stack, facts: Facts) -> None:
    for written in ("5", "5.0", "5.00", "5.000", "5.0000000000000000"):
        win = facts.another()
        paid = DIALECT.read_paid(await stack.send("hpgames", DIALECT.with_amount(win, written)), win, replay=False)
        assert paid.balance
    assert await stack.balance(facts.player_id) == 2500
    repeat = DIALECT.credit(win.but(amount="5"))
    DIALECT.read_paid(await stack.send("hpgames", repeat), win, replay=True)
    assert await stack.balance(facts.player_id) == 2500


@pytest.mark.parametrize("written", ['"5.00"', "null", "true", "[5]", '{"value":5}'])
async def test_amount_that_is_no_number_pays_nothing(stack: Stack, facts: Facts, written: str) -> None:
    response = await stack.send("hpgames", DIALECT.with_amount(facts, written))
    DIALECT.assert_error(response, "malformed", tx=facts.provider_tx_id)
    assert await stack.transfers(facts.player_id) == []


async def test_one_transaction_in_other_letters_is_paid_once(stack: Stack, facts: Facts) -> None:
    shouted = facts.but(provider_tx_id=facts.provider_tx_id.upper())
    fields = DIALECT.fields(shouted)
    in_capitals = {**fields, "merchantId": MERCHANT.upper(), "betId": fields["betId"].upper()}
    response = await stack.send("hpgames", DIALECT.signed(in_capitals, facts=shouted))
    first = DIALECT.read_paid(response, shouted, replay=False)
    second = DIALECT.read_paid(await stack.send("hpgames", DIALECT.credit(facts)), facts, replay=True)
    assert second == first
    [posted] = await stack.transfers(facts.player_id)
    assert (posted.provider_tx_id, posted.bet_id) == (facts.provider_tx_id, fields["betId"])


@pytest.mark.parametrize("name", ["merchantId", "betId", "transactionId"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "9c8b7a6d5e4f3210a9876b5c4d3e2f11",
        "{9c8b7a6d-5e4f-3210-a987-6b5c4d3e2f11}",
        "9c8b7a6d-5e4f-3210-a987-6b5c4d3e2f1g",
        "9c8b7a6d-5e4f-3210-a987-6b5c4d3e2f11\n",
        "9c8b7a6d-5e4f-3210-a987-6b5c4d3e2f1\uff11",
    ],
)
async def test_id_that_is_no_uuid_pays_nothing(stack: Stack, facts: Facts, name: str, text: str) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), name: text}, facts=facts)
    tx = text if name == "transactionId" else facts.provider_tx_id
    DIALECT.assert_error(await stack.send("hpgames", request), "malformed", tx=tx)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("timestamp", ["-1", "1.5", "1e12", "99999999999999999999", '"1773935126789"', "null"])
async def test_timestamp_is_a_whole_number(stack: Stack, facts: Facts, timestamp: str) -> None:
    fields = {**DIALECT.fields(facts), "timestamp": msgspec.Raw(timestamp.encode())}
    response = await stack.send("hpgames", DIALECT.signed(fields, facts=facts))
    DIALECT.assert_error(response, "malformed", tx=facts.provider_tx_id)
    assert await stack.transfers(facts.player_id) == []


async def test_another_merchant_is_told_so(stack: Stack, facts: Facts) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "merchantId": str(uuid4())}, facts=facts)
    DIALECT.assert_error(await stack.send("hpgames", request), "unknown_caller", tx=facts.provider_tx_id)


@pytest.mark.parametrize("currency", ["USD", "XXQ", "eur", ""])
async def test_win_in_a_currency_the_player_does_not_hold_is_not_paid(
    stack: Stack, facts: Facts, currency: str
) -> None:
    response = await stack.send("hpgames", DIALECT.credit(facts.but(currency=currency)))
    DIALECT.assert_error(response, "wrong_currency", tx=facts.provider_tx_id)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"playerId": ""},
        {"playerId": 5.5},
        {"playerId": "x" * 129},
        {"currency": 5},
        {"currency": None},
    ],
)
async def test_field_of_another_kind_is_told_with_the_transaction(
    stack: Stack, facts: Facts, changes: dict[str, Any]
) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), **changes}, facts=facts)
    response = await stack.send("hpgames", request)
    assert f"$.{next(iter(changes))}" in response.json()["errorText"]
    DIALECT.assert_error(response, "malformed", tx=facts.provider_tx_id)
    assert await stack.transfers(facts.player_id) == []


async def test_reward_goes_to_the_bonus_wallet_and_jackpot_to_the_real_one(stack: Stack, facts: Facts) -> None:
    reward = {"type": "REWARD", "rewardId": "r-1", "rewardType": "FREE_BET"}
    jackpot = {"type": "JACKPOT", "jackpotId": "j-1"}
    for changes, real, bonus in ((reward, 0, 1050), (jackpot, 1050, 0)):
        win = facts.another()
        request = DIALECT.signed({**DIALECT.fields(win), **changes}, facts=win)
        DIALECT.read_paid(await stack.send("hpgames", request), win, replay=False)
        posted = (await stack.transfers(facts.player_id))[-1]
        assert (posted.real_minor, posted.bonus_minor) == (real, bonus)
        told = {name: text for name, text in changes.items() if name != "type"}
        assert told.items() <= posted.details.items()


async def test_players_token_stays_out_of_the_books(stack: Stack, facts: Facts) -> None:
    await stack.send("hpgames", DIALECT.credit(facts))
    [posted] = await stack.transfers(facts.player_id)
    assert facts.session_id not in repr(posted)


async def test_codes_that_were_confirmed_replace_ours(stack: Stack, facts: Facts) -> None:
    await stack.send(CONFIRMED, SURE.credit(facts))
    conflict = await stack.send(CONFIRMED, SURE.credit(facts.but(amount="1.00")))
    assert SURE.exact_fields(conflict)["errorCode"] == "4711"
    assert SURE.exact_fields(await stack.send(CONFIRMED, SURE.credit(facts, FOREIGN_KEY)))["errorCode"] == "4712"


def test_start_says_which_codes_nobody_confirmed() -> None:
    table = {**DIALECT.settings, "error_codes": {"conflict": 4711}}
    notice = build("hp", table, Currencies()).startup_warning()
    assert notice is not None
    assert "bad_signature 1001" in notice
    assert not any(word in notice for word in ("conflict", "posted", "replayed"))


def test_start_is_silent_when_every_code_is_confirmed() -> None:
    confirmed = {r.value: code for r, code in hpgames.ERROR_CODES.items() if code}
    assert build("hp", {**DIALECT.settings, "error_codes": confirmed}, Currencies()).startup_warning() is None


@pytest.mark.parametrize("codes", [{"conflict": 0}, {"conflict": -1}, {"posted": 5}, {"conflictt": 5}])
def test_start_refuses_codes_that_would_tell_an_error_as_a_success(codes: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="error_codes"):
        build("hp", {**DIALECT.settings, "error_codes": codes}, Currencies())


@pytest.mark.parametrize(
    ("kind", "recorded"),
    [("FREE", "FREE"), ("regular", "regular"), ("", None), (5, "5"), (None, None), ([1], "[1]")],
)
async def test_win_of_an_unknown_type_is_paid_as_a_regular_one(
    stack: Stack, facts: Facts, kind: object, recorded: str | None
) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "type": kind}, facts=facts)
    DIALECT.read_paid(await stack.send("hpgames", request), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert (posted.kind, posted.real_minor) == ("win", 1050)
    assert posted.details.get("type") == recorded


@pytest.mark.parametrize(("game", "stored"), [(1, "1"), ("1", "1"), (-1, "-1"), (None, None), ({}, None)])
async def test_game_is_any_number_or_text(stack: Stack, facts: Facts, game: object, stored: str | None) -> None:
    await stack.send("hpgames", DIALECT.signed({**DIALECT.fields(facts), "gameId": game}, facts=facts))
    [posted] = await stack.transfers(facts.player_id)
    assert posted.game_id == stored


UUIDS: Final = st.uuids().map(str)
LEXEMES: Final = st.from_regex(r"\A[0-9]{1,20}(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?\Z")


@given(ids=st.tuples(UUIDS, UUIDS, UUIDS), amount=LEXEMES, timestamp=st.from_regex(r"\A[0-9]{1,19}\Z"))
def test_signed_message_determines_its_fields(ids: tuple[str, str, str], amount: str, timestamp: str) -> None:
    merchant, bet, tx = ids
    message = f"{merchant}{bet}{amount}{tx}{timestamp}"
    end = message.rindex("-") + 13
    assert (message[:36], message[36:72]) == (merchant, bet)
    assert (message[72 : end - 36], message[end - 36 : end], message[end:]) == (amount, tx, timestamp)
