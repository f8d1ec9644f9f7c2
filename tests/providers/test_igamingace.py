"""iGamingAce: what it certifies, and its own ways."""

from typing import Final

import msgspec
import pytest

from gateway.providers import igamingace
from gateway.providers.base import Callback
from gateway.providers.registry import build
from shared.errors import SettingsError
from shared.money import Currencies
from simulator.dialects.base import body_of, take_message
from simulator.dialects.igamingace import AGENT, DIALECT, form_of, sent, signature_of
from simulator.dialects.values import Facts
from tests.providers.conformance import Conformance
from tests.providers.verbs import Verbs
from tests.support.stack import Stack

PUBLISHED_SIGN: Final = "C299A37986C806F27CCBC8D8599E0C8DA732D1604B934917C1ABC0999C244C0D"
PUBLISHED: Final = "igamingace-published"
POLITE: Final = "igamingace-polite"
DINARS: Final = "igamingace-dinars"
INTEGRATIONS: Final = {
    PUBLISHED: {**DIALECT.settings, "secrets": ["1234567890"]},
    POLITE: {**DIALECT.at(POLITE).settings, "unavailable_status": 200},
    DINARS: {**DIALECT.at(DINARS).settings, "currency": "KWD"},
}


class TestConformance(Conformance):
    dialect = DIALECT


class TestVerbs(Verbs):
    dialect = DIALECT
    codes = igamingace.CODES


async def test_deposit_of_the_current_version_is_paid(stack: Stack, facts: Facts) -> None:
    await stack.add_player("Player01", "EUR")
    fields = {
        "agentID": AGENT,
        "userID": "Player01",
        "amount": msgspec.Raw(b"12.3"),
        "refTransactionID": "4146ed8dd6d5497780e9fc273e86bae0",
        "transactionID": "474e1a293c2f4e7ab122c52d68423fcb",
        "roundID": "ab9c15f2efdd46278e4a56b303127234",
        "gameID": 2001,
        "freeSpinID": None,
        "sign": PUBLISHED_SIGN,
    }
    response = await stack.send(PUBLISHED, sent(body_of(fields)))
    assert DIALECT.read_paid(response, facts, replay=False).balance == "12.3"


async def test_one_signature_never_pays_a_second_player(stack: Stack, facts: Facts) -> None:
    await stack.add_player("player01", "EUR")
    await stack.add_player("player0", "EUR")
    first = DIALECT.credit(facts.but(player_id="player01", amount="1.00"))
    second = DIALECT.credit(facts.but(player_id="player0", amount="11.00"))
    assert msgspec.json.decode(first.body)["sign"] == msgspec.json.decode(second.body)["sign"]
    assert DIALECT.read_paid(await stack.send("igamingace", first), facts, replay=False).balance == "1"
    DIALECT.assert_error(await stack.send("igamingace", second), "conflict", tx=None)
    assert (await stack.balance("player01"), await stack.balance("player0")) == (100, 0)


@pytest.mark.parametrize(
    "user",
    ["abc", "", "x" * 49, "player-01", "player 01", "player01\n", "playér01", "\uff11\uff12\uff13\uff14"],
)
async def test_user_that_is_no_alphanumeric_id_is_wrong(stack: Stack, facts: Facts, user: str) -> None:
    response = await stack.send("igamingace", DIALECT.credit(facts.but(player_id=user)))
    DIALECT.assert_error(response, "malformed", tx=None)


@pytest.mark.parametrize("agent", ["", "partner01", "Partner02"])
async def test_another_agent_is_told_so(stack: Stack, facts: Facts, agent: str) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "agentID": agent}, facts=facts)
    DIALECT.assert_error(await stack.send("igamingace", request), "unknown_caller", tx=None)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("written", ["12.30", "12.3", "12.300", '"12.3"', '"12.30"'])
async def test_every_spelling_of_an_amount_is_signed_with_two_decimals(
    stack: Stack, facts: Facts, written: str
) -> None:
    fields = {**DIALECT.fields(facts), "amount": msgspec.Raw(written.encode())}
    sign = signature_of({**fields, "amount": "12.30"})
    response = await stack.send("igamingace", sent(body_of({**fields, "sign": sign})))
    assert DIALECT.read_paid(response, facts, replay=False).balance == "12.3"


@pytest.mark.parametrize("written", ['"12.345"', "12.345", '" 12.30"', '"12.30\\n"', '"1_2.30"', '"١٢.30"', '"NaN"'])
async def test_amount_that_cannot_be_signed_is_wrong(stack: Stack, facts: Facts, written: str) -> None:
    fields = {**DIALECT.fields(facts), "amount": msgspec.Raw(written.encode())}
    DIALECT.assert_error(await stack.send("igamingace", DIALECT.signed(fields, facts=facts)), "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_amount_is_in_the_players_own_currency(stack: Stack, facts: Facts) -> None:
    for currency, written, minor, balance in (
        ("JPY", "120.00", 120, "120"),
        ("KWD", "1.23", 1230, "1.23"),
        ("USD", "0.05", 5, "0.05"),
    ):
        player = f"{facts.player_id}{currency}"
        await stack.add_player(player, currency)
        win = facts.another(player_id=player, amount=written)
        paid = DIALECT.read_paid(await stack.send("igamingace", DIALECT.credit(win)), win, replay=False)
        assert (paid.balance, await stack.balance(player, currency)) == (balance, minor)


async def test_yen_has_no_hundredths(stack: Stack, facts: Facts) -> None:
    player = f"{facts.player_id}JPY"
    await stack.add_player(player, "JPY")
    win = facts.but(player_id=player, amount="1.50")
    DIALECT.assert_error(await stack.send("igamingace", DIALECT.credit(win)), "malformed", tx=None)


async def test_amount_is_in_the_configured_currency(stack: Stack, facts: Facts) -> None:
    player = f"{facts.player_id}KWD"
    await stack.add_player(player, "KWD")
    win, theirs = facts.another(player_id=player, amount="1.23"), DIALECT.at(DINARS)
    paid = theirs.read_paid(await stack.send(DINARS, theirs.credit(win)), win, replay=False)
    assert paid.balance == "1.23"
    theirs.assert_error(await stack.send(DINARS, theirs.credit(facts)), "wrong_currency", tx=None)
    nobody = facts.another(player_id="nobody1")
    theirs.assert_error(await stack.send(DINARS, theirs.credit(nobody)), "unknown_player", tx=None)


def test_start_refuses_a_currency_that_is_none() -> None:
    with pytest.raises(SettingsError, match=r"\[integrations.ace\] currency: unknown currency 'XXQ'"):
        build("ace", {**DIALECT.settings, "currency": "XXQ"}, Currencies())


async def test_repeat_tells_the_balance_of_that_time(stack: Stack, facts: Facts) -> None:
    first = DIALECT.read_paid(await stack.send("igamingace", DIALECT.credit(facts)), facts, replay=False)
    await stack.send("igamingace", DIALECT.credit(facts.another()))
    repeat = DIALECT.read_paid(await stack.send("igamingace", DIALECT.credit(facts)), facts, replay=True)
    assert repeat == first


async def test_form_is_read_as_json_is(stack: Stack, facts: Facts) -> None:
    form = form_of(DIALECT.fields(facts), "application/x-www-form-urlencoded; charset=UTF-8")
    paid = DIALECT.read_paid(await stack.send("igamingace", form), facts, replay=False)
    # The same win, told as JSON: the empty freeSpinID of a form is JSON's null, and "1566" is 1566.
    repeat = DIALECT.read_paid(await stack.send("igamingace", DIALECT.credit(facts)), facts, replay=True)
    assert repeat == paid
    assert await stack.balance(facts.player_id) == 1050


async def test_empty_field_of_a_form_is_an_absent_one(stack: Stack, facts: Facts) -> None:
    form = form_of({**DIALECT.fields(facts), "refTransactionID": "", "gameID": ""})
    paid = DIALECT.read_paid(await stack.send("igamingace", form), facts, replay=False)
    bare = {k: v for k, v in DIALECT.fields(facts).items() if k not in {"refTransactionID", "gameID"}}
    response = await stack.send("igamingace", DIALECT.signed(bare, facts=facts))
    assert DIALECT.read_paid(response, facts, replay=True) == paid


async def test_form_that_is_no_text_pays_nothing(stack: Stack, facts: Facts) -> None:
    form = form_of(DIALECT.fields(facts.but(round_id="\ufffd")))
    strange = form._replace(body=form.body.replace(b"%EF%BF%BD", b"%FF"))
    DIALECT.assert_error(await stack.send("igamingace", strange), "malformed", tx=None)
    DIALECT.read_paid(await stack.send("igamingace", form), facts, replay=False)


async def test_form_of_too_many_fields_pays_nothing(stack: Stack, facts: Facts) -> None:
    form = form_of(DIALECT.fields(facts))
    padded = form._replace(body=form.body + b"&a=b" * 100)
    DIALECT.assert_error(await stack.send("igamingace", padded), "malformed", tx=None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"agentID",
        b"%",
        b"agentID=%ff",
        b"\xff=1",
        b"a=b",
        b"&".join([b"a=b"] * 1000),
        b'{"agentID":1}',
        b"%00=1",
    ],
)
async def test_form_that_is_none_is_wrong(stack: Stack, body: bytes) -> None:
    form = Callback("Deposit", body, {"content-type": "application/x-www-form-urlencoded"})
    DIALECT.assert_error(await stack.send("igamingace", form), "malformed", tx=None)


async def test_forged_form_moves_nothing(stack: Stack, facts: Facts) -> None:
    form = form_of(DIALECT.fields(facts))
    forged = form._replace(body=form.body.replace(b"amount=10.50", b"amount=90.50"))
    DIALECT.assert_error(await stack.send("igamingace", forged), "bad_signature", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_free_spin_win_goes_to_the_bonus_wallet(stack: Stack, facts: Facts) -> None:
    for free_spin_id, recorded in (("freespin001", "freespin001"), (7, "7"), ([1], "[1]")):
        win = facts.another()
        request = DIALECT.signed({**DIALECT.fields(win), "freeSpinID": free_spin_id}, facts=win)
        DIALECT.read_paid(await stack.send("igamingace", request), win, replay=False)
        posted = (await stack.transfers(facts.player_id))[-1]
        assert (posted.real_minor, posted.bonus_minor) == (0, 1050)
        assert posted.details == {"freeSpinID": recorded}


@pytest.mark.parametrize("free_spin_id", [None, "", "absent", 0, "0", [], {}, False])
async def test_no_free_spin_id_means_no_free_spin(stack: Stack, facts: Facts, free_spin_id: object) -> None:
    fields = {**DIALECT.fields(facts), "freeSpinID": free_spin_id}
    if free_spin_id == "absent":
        del fields["freeSpinID"]
    DIALECT.read_paid(await stack.send("igamingace", DIALECT.signed(fields, facts=facts)), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert (posted.real_minor, posted.bonus_minor) == (1050, 0)


@pytest.mark.parametrize(
    ("game", "stored"),
    [
        (1.50, "1.5"),
        (-1, "-1"),
        (2**70, str(2**70)),
        ("x", "x"),
        (True, None),
        ([], None),
        ({}, None),
        ("", None),
    ],
)
async def test_game_is_any_number_or_text(stack: Stack, facts: Facts, game: object, stored: str | None) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "gameID": game}, facts=facts)
    DIALECT.read_paid(await stack.send("igamingace", request), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert posted.game_id == stored


@pytest.mark.parametrize("written", ["12.30", "12.3", "12.300", "1.23E1", "123e-1", '"12.3"'])
def test_amount_is_signed_by_its_value(written: str) -> None:
    provider, win = build("ace", DIALECT.settings, Currencies()), Facts("player1", "s")
    fields = {**DIALECT.fields(win), "amount": msgspec.Raw(written.encode())}
    provider.authenticate(sent(body_of({**fields, "sign": signature_of({**fields, "amount": "12.30"})})))


@pytest.mark.parametrize(
    ("written", "plain"), [("012.30", "12.30"), ("00.50", "0.50"), ("007", "7.00"), ("00", "0.00")]
)
async def test_amount_with_a_zero_at_its_start_pays_nothing(
    stack: Stack, facts: Facts, written: str, plain: str
) -> None:
    """The zero may have been the end of userID, in the request that was signed."""
    fields = {**DIALECT.fields(facts), "amount": written}
    for signed_as in (written, plain):
        request = sent(body_of({**fields, "sign": signature_of({**fields, "amount": signed_as})}))
        DIALECT.assert_error(await stack.send("igamingace", request), "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("user_id", [999, "999", "Player-1", "", 10**48, "1" * 49, msgspec.Raw(b"-1000")])
async def test_user_is_4_to_48_letters_and_digits_in_either_form(stack: Stack, facts: Facts, user_id: object) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "userID": user_id}, facts=facts)
    DIALECT.assert_error(await stack.send("igamingace", request), "malformed", tx=None)


async def test_json_under_the_name_of_a_form_is_read_as_json(stack: Stack, facts: Facts) -> None:
    request = DIALECT.credit(facts)
    named = request._replace(headers={"content-type": "application/x-www-form-urlencoded"})
    DIALECT.read_paid(await stack.send("igamingace", named), facts, replay=False)
    spaced = named._replace(body=b" \r\n" + named.body)
    DIALECT.read_paid(await stack.send("igamingace", spaced), facts, replay=True)


async def test_silence_of_the_ledger_is_http_200_where_the_operator_says_so(stack: Stack, facts: Facts) -> None:
    with stack.unreachable():
        response = await stack.send(POLITE, DIALECT.at(POLITE).credit(facts))
    assert response.status_code == 200
    assert take_message(DIALECT.exact_fields(response), "message") == {"code": "1"}


def test_it_waits_eight_seconds_unless_told_otherwise() -> None:
    assert build("ace", DIALECT.settings, Currencies()).settings.reply_within_seconds == 8
