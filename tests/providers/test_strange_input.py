"""Whatever comes in becomes a sound credit or the provider's own error; it is never a fault of ours."""

import json
import re
from typing import Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.providers.base import Callback, CallbackRejected
from gateway.providers.registry import build
from shared.money import Currencies
from shared.operations import Credit
from shared.queries import PlayerRef
from simulator.dialects import DIALECTS, igamingace
from simulator.dialects.base import Dialect
from simulator.dialects.values import Facts

CURRENCIES: Final = Currencies()
FACTS: Final = Facts("player1", "session-1")
PLAYER: Final = PlayerRef("player1", "EUR")
STRANGE: Final = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)

each_provider = pytest.mark.parametrize("speaker", DIALECTS.values(), ids=repr)


def _credit_of(speaker: Dialect, callback: Callback) -> Credit | None:
    """Return the credit that a request becomes, or None for a reply that refuses it."""
    provider = build(speaker.name, speaker.settings, CURRENCIES)
    try:
        provider.authenticate(callback)
        message = provider.parse(callback)
        provider.lookup(message)
        credit = provider.normalize(message, PLAYER)
    except CallbackRejected as refused:
        reply = provider.render(callback, refused.outcome)
        said = json.loads(reply.body)
        return None if said else pytest.fail("an empty reply")
    assert isinstance(credit, Credit)
    return credit


def _assert_sound(credit: Credit | None) -> None:
    if credit is None:
        return
    assert 0 <= credit.amount_minor < 10**18
    ids = (credit.provider_tx_id, credit.player_id, credit.round_id, credit.game_id, credit.bet_id)
    for text in (*ids, credit.session_id, *credit.details.values()):
        assert text is None or (0 < len(text) <= 1_000 and "\0" not in text)
        assert text is None or text.encode()


@pytest.mark.slow
@each_provider
@given(strange=STRANGE, data=st.data())
@settings(max_examples=200, deadline=None)
def test_field_of_any_content_is_no_fault_of_ours(speaker: Dialect, strange: object, data: st.DataObject) -> None:
    fields = dict(speaker.fields(FACTS))
    fields[data.draw(st.sampled_from(sorted(fields)))] = strange
    _assert_sound(_credit_of(speaker, speaker.signed(fields, facts=FACTS)))


@pytest.mark.slow
@each_provider
@given(strange=STRANGE, data=st.data())
@settings(max_examples=300, deadline=None)
def test_win_is_owed_whatever_is_in_a_field_that_money_does_not_need(
    speaker: Dialect, strange: object, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(speaker.optional(FACTS)), min_size=1, unique=True))
    if "refTransactionID" in names:  # with a decimal there, it may be the message of iGamingAce's BetWin
        assume(re.match(r"[0-9]+\.[0-9]", str(strange)) is None)
    fields = {**speaker.fields(FACTS), **dict.fromkeys(names, strange)}
    credit = _credit_of(speaker, speaker.signed(fields, facts=FACTS))
    _assert_sound(credit)
    assert credit is not None
    assert (credit.provider_tx_id, credit.player_id) == (FACTS.provider_tx_id, FACTS.player_id)
    assert (credit.currency, credit.amount_minor) == ("EUR", 1050)


@each_provider
@given(cut=st.integers(0, 2_000), put=st.binary(max_size=50))
@settings(max_examples=200, deadline=None)
def test_request_with_any_bytes_in_it_is_no_fault_of_ours(speaker: Dialect, cut: int, put: bytes) -> None:
    body = speaker.credit(FACTS).body
    at = cut % len(body)
    _assert_sound(_credit_of(speaker, speaker.raw(body[:at] + put + body[at + len(put) :], facts=FACTS)))


@each_provider
@given(body=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_body_of_any_bytes_is_no_fault_of_ours(speaker: Dialect, body: bytes) -> None:
    assert _credit_of(speaker, speaker.raw(body, facts=FACTS)) is None


@given(body=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_form_of_any_bytes_is_no_fault_of_ours(body: bytes) -> None:
    form = Callback("Deposit", body, {"content-type": "application/x-www-form-urlencoded"})
    assert _credit_of(igamingace.DIALECT, form) is None
