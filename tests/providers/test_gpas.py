"""GPAS: what it certifies, and its own ways."""

from typing import Final

import msgspec
import pytest

from gateway.providers import gpas
from gateway.providers.base import Callback, CallbackRejected
from gateway.providers.registry import build
from shared.money import Currencies
from shared.operations import Credit
from shared.outcome import OutcomeCode
from shared.queries import PlayerRef
from simulator.dialects.gpas import DIALECT, PARENT
from simulator.dialects.values import Facts
from tests.providers.conformance import Conformance
from tests.providers.verbs import Verbs
from tests.support.stack import Stack

PUBLISHED_BODY: Final = (
    b'{"externalReference":"agt-n1572n6e5e5w2mw13l867azo4b381t27","value":"200",'
    b'"description":"Credit game move for customer id 6df5sd made by gpas","typeCode":"GAME_CREDIT",'
    b'"tags":{"gpasSessionId":"gpas-bfd9516b-c51f-4bd5-ab83-8899100dc636","gameid":"agt-13"}}'
)
PUBLISHED_SIGNATURE: Final = "ADC0C7E5A925645EED839485C12F0DFDFEEA257F"
DUPLICATES_FAIL: Final = "gpas-duplicates-fail"
OPEN_ONLY: Final = "gpas-open-only"
PUBLISHED: Final = "gpas-published"
ONCE: Final = DIALECT.at(DUPLICATES_FAIL)
STRICT: Final = DIALECT.at(OPEN_ONLY)
INTEGRATIONS: Final = {
    DUPLICATES_FAIL: {**ONCE.settings, "duplicate_reply": "error"},
    OPEN_ONLY: {**STRICT.settings, "pay_closed_sessions": False},
    PUBLISHED: {**DIALECT.settings, "secrets": ["Ax34deSfgdB"]},
}


class TestConformance(Conformance):
    dialect = DIALECT


class TestVerbs(Verbs):
    dialect = DIALECT
    codes = gpas.CODES


async def test_published_example_is_paid(stack: Stack, facts: Facts) -> None:
    await stack.open_session(PUBLISHED, facts.session_id, facts.player_id)
    headers = {
        "content-type": "application/json",
        "x-parent-system-id": PARENT,
        "x-signature": PUBLISHED_SIGNATURE,
    }
    published = Callback("movements/credit", PUBLISHED_BODY, headers, {"walletSessionId": facts.session_id})
    assert DIALECT.read_paid(await stack.send(PUBLISHED, published), facts, replay=False).balance == "200"


async def test_value_may_be_a_number(stack: Stack, facts: Facts) -> None:
    for written, balance in (("200", "200"), ("0.10", "200.1"), ("5.000", "205.1")):
        win = facts.another()
        fields = {**DIALECT.fields(win), "value": msgspec.Raw(written.encode())}
        response = await stack.send("gpas", DIALECT.signed(fields, facts=win))
        assert DIALECT.read_paid(response, win, replay=False).balance == balance


@pytest.mark.parametrize("written", ["-1", "-0", "1E99", "1e-3", "1.001", "5e", "9" * 17, "true", "null"])
async def test_value_that_is_no_plain_number_pays_nothing(stack: Stack, facts: Facts, written: str) -> None:
    fields = {**DIALECT.fields(facts), "value": msgspec.Raw(written.encode())}
    response = await stack.send("gpas", DIALECT.signed(fields, facts=facts))
    DIALECT.assert_error(response, "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_win_replayed_under_another_players_session_is_not_paid_twice(
    stack: Stack, facts: Facts, other: Facts
) -> None:
    right = DIALECT.credit(facts)
    await stack.send("gpas", right)
    stolen = right._replace(query={"walletSessionId": other.session_id})
    DIALECT.assert_error(await stack.send("gpas", stolen), "conflict", tx=None)
    assert await stack.balance(facts.player_id) == 1050
    assert await stack.balance(other.player_id) == 0


async def test_win_replayed_under_the_players_session_in_another_currency_is_not_paid_twice(
    stack: Stack, facts: Facts
) -> None:
    await stack.add_player(facts.player_id, "USD")
    dollars = facts.but(session_id=facts.session_id + "-dollars")
    await stack.open_session("gpas", dollars.session_id, facts.player_id, "USD")
    await stack.send("gpas", DIALECT.credit(facts))
    DIALECT.assert_error(await stack.send("gpas", DIALECT.credit(dollars)), "conflict", tx=None)
    paid = DIALECT.read_paid(await stack.send("gpas", DIALECT.credit(dollars.another())), dollars, replay=False)
    assert paid.balance == "10.5"
    assert await stack.balance(facts.player_id, "EUR") == await stack.balance(facts.player_id, "USD") == 1050


async def test_win_repeated_under_the_players_next_session_is_the_same_win(stack: Stack, facts: Facts) -> None:
    first = DIALECT.read_paid(await stack.send("gpas", DIALECT.credit(facts)), facts, replay=False)
    await stack.open_session("gpas", facts.session_id + "-next", facts.player_id)
    later = facts.but(session_id=facts.session_id + "-next")
    assert DIALECT.read_paid(await stack.send("gpas", DIALECT.credit(later)), later, replay=True) == first


async def test_win_of_another_integrations_session_is_not_paid(stack: Stack, facts: Facts) -> None:
    response = await stack.send(DIALECT.second_brand, DIALECT.at(DIALECT.second_brand).credit(facts))
    DIALECT.assert_error(response, "unknown_session", tx=None)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("session_id", ["", "unknown", "a\0b", "x" * 200, "Zoë 玩家", "' OR 1=1 --"])
async def test_win_of_no_known_session_is_not_paid(stack: Stack, facts: Facts, session_id: str) -> None:
    response = await stack.send("gpas", DIALECT.credit(facts.but(session_id=session_id)))
    DIALECT.assert_error(response, "unknown_session", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_win_without_a_session_is_not_paid(stack: Stack, facts: Facts) -> None:
    response = await stack.send("gpas", DIALECT.credit(facts)._replace(query={}))
    assert response.json()["message"] == "walletSessionId is missing from the query"
    DIALECT.assert_error(response, "unknown_session", tx=None)


def test_blanks_around_a_header_are_not_part_of_it() -> None:
    right = DIALECT.credit(Facts("p", "s"))
    blanks = right._replace(headers={name: f" \t{value} " for name, value in right.headers.items()})
    build("gpas", DIALECT.settings, Currencies()).authenticate(blanks)


@pytest.mark.parametrize("parent", [None, "", "bl13gt", "BL13GT2"])
async def test_another_parent_system_is_told_so(stack: Stack, facts: Facts, parent: str | None) -> None:
    right = DIALECT.credit(facts)
    headers = {k: v for k, v in right.headers.items() if k != "x-parent-system-id"}
    if parent is not None:
        headers["x-parent-system-id"] = parent
    DIALECT.assert_error(await stack.send("gpas", right._replace(headers=headers)), "unknown_caller", tx=None)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("reference", ["", "x" * 129, "a\nb"])
async def test_reference_that_can_name_nothing_is_told_so(stack: Stack, facts: Facts, reference: str) -> None:
    response = await stack.send("gpas", DIALECT.credit(facts.but(provider_tx_id=reference)))
    DIALECT.assert_error(response, "invalid_tx_id", tx=None)
    assert await stack.transfers(facts.player_id) == []


@pytest.mark.parametrize("type_code", ["GAME_DEBIT", "game_credit", "", None, 5])
async def test_bet_is_never_taken_for_a_win(stack: Stack, facts: Facts, type_code: object) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "typeCode": type_code}, facts=facts)
    DIALECT.assert_error(await stack.send("gpas", request), "malformed", tx=None)
    assert await stack.transfers(facts.player_id) == []


async def test_every_tag_is_kept(stack: Stack, facts: Facts) -> None:
    request = DIALECT.tagged(facts, campaign="Žluťoučký", level=7, none=None, deep={"a": [1.50]})
    DIALECT.read_paid(await stack.send("gpas", request), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert posted.details == {
        "description": "delivery 1",
        "tags.gpasSessionId": "gpas-bfd9516b",
        "tags.gameid": "agt-13",
        "tags.roundid": "round-1",
        "tags.closeRound": "true",
        "tags.externalReferenceBet": "agt-53rr34pq",
        "tags.campaign": "Žluťoučký",
        "tags.level": "7",
        "tags.deep": '{"a":[1.5]}',
    }


@pytest.mark.parametrize(("round_id", "stored"), [("r" * 300, "r" * 300), ("玩" * 1_000, None)])
async def test_win_of_a_long_round_is_paid_without_what_no_index_can_hold(
    stack: Stack, facts: Facts, round_id: str, stored: str | None
) -> None:
    request = DIALECT.tagged(facts, roundid=round_id)
    DIALECT.read_paid(await stack.send("gpas", request), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert posted.round_id == stored
    assert posted.details["tags.roundid"] == round_id


@pytest.mark.parametrize("tags", [None, {}, "absent"])
async def test_win_without_tags_is_paid(stack: Stack, facts: Facts, tags: object) -> None:
    fields = {**DIALECT.fields(facts), "tags": tags}
    if tags == "absent":
        del fields["tags"]
    DIALECT.read_paid(await stack.send("gpas", DIALECT.signed(fields, facts=facts)), facts, replay=False)
    assert await stack.balance(facts.player_id) == 1050


@pytest.mark.parametrize(
    ("tags", "recorded"),
    [
        ([], {}),
        ("x", {}),
        (7, {}),
        ({"a\0": "b", "": "c", "x" * 129: "d"}, {}),
        ({"a": "\0"}, {"tags.a": '"\\u0000"'}),
        ({"roundid": ["r"], "gameid": 5, "closeRound": True}, {"tags.roundid": '["r"]', "tags.gameid": "5"}),
    ],
)
async def test_tags_that_are_no_tags_cost_no_win(
    stack: Stack, facts: Facts, tags: object, recorded: dict[str, str]
) -> None:
    request = DIALECT.signed({**DIALECT.fields(facts), "tags": tags}, facts=facts)
    DIALECT.read_paid(await stack.send("gpas", request), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert recorded.items() <= posted.details.items()
    assert posted.round_id is None


async def test_tags_that_are_too_many_are_kept_as_far_as_they_mean_something(stack: Stack, facts: Facts) -> None:
    tags = {**{str(n): "x" for n in range(1_000)}, "roundid": "round-1"}
    request = DIALECT.signed({**DIALECT.fields(facts), "tags": tags}, facts=facts)
    DIALECT.read_paid(await stack.send("gpas", request), facts, replay=False)
    [posted] = await stack.transfers(facts.player_id)
    assert posted.round_id == posted.details["tags.roundid"] == "round-1"
    assert len(posted.details) == 1 + gpas.TAGS_MAX


async def test_repeat_is_an_error_where_the_operator_says_so(stack: Stack, facts: Facts) -> None:
    await stack.open_session(DUPLICATES_FAIL, facts.session_id, facts.player_id)
    first = await stack.send(DUPLICATES_FAIL, ONCE.credit(facts))
    assert DIALECT.read_paid(first, facts, replay=False).balance == "10.5"
    repeat = await stack.send(DUPLICATES_FAIL, ONCE.credit(facts))
    DIALECT.assert_error(repeat, "conflict", tx=None)
    assert await stack.balance(facts.player_id) == 1050


async def test_win_after_the_close_is_refused_where_the_operator_says_so(stack: Stack, facts: Facts) -> None:
    await stack.open_session(OPEN_ONLY, facts.session_id, facts.player_id)
    paid = DIALECT.read_paid(await stack.send(OPEN_ONLY, STRICT.credit(facts)), facts, replay=False)
    await stack.close_session(OPEN_ONLY, facts.session_id)
    late = facts.another()
    DIALECT.assert_error(await stack.send(OPEN_ONLY, STRICT.credit(late)), "session_closed", tx=None)
    repeat = await stack.send(OPEN_ONLY, STRICT.credit(facts))
    assert DIALECT.read_paid(repeat, facts, replay=True) == paid
    assert await stack.balance(facts.player_id) == 1050


@pytest.mark.parametrize("session_id", ["", "a\0b", "x" * 129])
def test_session_that_can_be_none_is_not_looked_up(session_id: str) -> None:
    provider = build("gpas", DIALECT.settings, Currencies())
    message = provider.parse(DIALECT.credit(Facts("p", session_id)))
    with pytest.raises(CallbackRejected) as refused:
        provider.lookup(message)
    assert refused.value.outcome.code is OutcomeCode.UNKNOWN_SESSION


def test_closed_round_is_told_by_its_tag() -> None:
    provider = build("gpas", DIALECT.settings, Currencies())
    win = Facts("p", "s")
    for tag, closed in (("true", True), ("false", False), (True, True), (None, False)):
        message = provider.parse(DIALECT.tagged(win, closeRound=tag))
        credit = provider.normalize(message, PlayerRef("p", "EUR"))
        assert isinstance(credit, Credit)
        assert credit.round_closed is closed
