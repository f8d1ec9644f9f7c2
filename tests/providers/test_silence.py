"""No field of a request is quoted: not in a reply, not in a log line; ids that the protocol echoes apart."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.callback import CallbackHandler
from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.load_shedding import ShedLog
from gateway.metrics import GatewayMetrics
from gateway.players import PlayerCache
from gateway.providers.base import Callback
from gateway.providers.registry import build
from gateway.time_slices import TimeSlices
from shared.money import Currencies
from shared.outcome import Balance, Outcome, OutcomeCode, Receipt
from shared.wire import Answer, Question
from simulator.dialects.base import Dialect
from simulator.dialects.values import Facts
from tests.providers.test_strange_input import each_provider

MARKER: Final = "MARKER"
NUMBER: Final = 7_355_608_073_556
MARKERS: Final = (MARKER.encode(), str(NUMBER).encode())
FACTS: Final = Facts("player1", "session-1")
RECEIPT: Final = Receipt("transfer-1", "EUR", 1050, 0, 1050, 0)
ANSWERS: Final = (
    Outcome(OutcomeCode.POSTED, RECEIPT),
    Outcome(OutcomeCode.CONFLICT, mismatched_fields=("round_id",)),
    Outcome(OutcomeCode.WRONG_CURRENCY),
    Outcome(OutcomeCode.UNPOSTABLE),
)
QUOTED: Final = (
    MARKER,
    f"'{MARKER}",
    f'"{MARKER}\\ - at `$.{MARKER}`',
    f"{MARKER}\0",
    f"\n{MARKER}",
    MARKER * 200,
    "१" + MARKER,
    f"1e{MARKER}",
    f"{NUMBER}.12345",
    f"-{NUMBER}",
)
NUMBERS: Final = (NUMBER, -NUMBER, NUMBER + 0.123, NUMBER**3)
TEXTS: Final = st.sampled_from(QUOTED)
VALUES: Final = st.recursive(
    TEXTS | st.sampled_from(NUMBERS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=3,
)


class _StubLedger(LedgerClient):
    """A ledger that knows the player and gives one answer to everything."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(ConcurrencyLimit(1))
        self._outcome = outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer]:
        del deadline
        return [self._outcome for _ in questions]

    async def call(self, question: Question, deadline: float) -> Answer:
        del question, deadline
        return Balance("player1", "EUR", 0, 0)


async def _answer(speaker: Dialect, callback: Callback, outcome: Outcome) -> tuple[bytes, Any]:
    """Return the reply to a request, and what is logged of it."""
    ledger = _StubLedger(outcome)
    metrics = GatewayMetrics(lambda: 0)
    provider = build(speaker.name, speaker.settings, Currencies())
    integration = CallbackHandler(provider, ledger, PlayerCache(ledger), metrics, ShedLog(metrics))
    with capture_logs() as lines:
        reply = await integration.handle(callback, TimeSlices(integration.scheduler))
    return reply.body, lines


def _assert_silent(speaker: Dialect, callback: Callback, outcome: Outcome) -> None:
    body, lines = asyncio.run(_answer(speaker, callback, outcome))
    logged = repr(lines).encode()
    for marker in MARKERS:
        assert marker not in body
        assert marker not in logged
    assert lines


@each_provider
def test_field_that_is_wrong_by_itself_is_not_quoted(speaker: Dialect) -> None:
    for name in (*speaker.fields(FACTS), *speaker.more_fields):
        if name != speaker.tx_field:
            for value in (*QUOTED, *NUMBERS, [MARKER], {MARKER: NUMBER}):
                changed = speaker.signed({**speaker.fields(FACTS), name: value}, facts=FACTS)
                _assert_silent(speaker, changed, ANSWERS[0])


@pytest.mark.slow
@each_provider
@given(data=st.data(), outcome=st.sampled_from(ANSWERS))
@settings(max_examples=300, deadline=None)
def test_no_field_is_quoted(speaker: Dialect, data: st.DataObject, outcome: Outcome) -> None:
    fields = dict(speaker.fields(FACTS))
    names = [name for name in (*fields, *speaker.more_fields) if name != speaker.tx_field]
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True)):
        fields[name] = data.draw(VALUES)
    fields |= data.draw(st.dictionaries(TEXTS, VALUES, max_size=2))
    _assert_silent(speaker, speaker.signed(fields, facts=FACTS), outcome)


@pytest.mark.slow
@each_provider
@given(data=st.data(), kind=st.sampled_from(["application/json", "application/x-www-form-urlencoded"]))
@settings(max_examples=200, deadline=None)
def test_no_body_that_can_not_be_read_is_quoted(speaker: Dialect, data: st.DataObject, kind: str) -> None:
    pieces = [
        b'{"',
        MARKER.encode(),
        b'":',
        b'"\\q',
        b'"',
        b"=",
        b"&",
        b"%",
        b"\xff",
        b",",
        str(NUMBER).encode(),
        b"}",
    ]
    body = b"".join(data.draw(st.lists(st.sampled_from(pieces), max_size=12)))
    callback = speaker.raw(body, facts=FACTS)
    named = callback._replace(headers={**callback.headers, "content-type": kind})
    _assert_silent(speaker, named, ANSWERS[0])


@each_provider
def test_no_signature_account_or_session_is_quoted(speaker: Dialect) -> None:
    right = speaker.credit(FACTS)
    for name in right.headers:
        _assert_silent(speaker, right._replace(headers={**right.headers, name: MARKER}), ANSWERS[0])
    if right.query:
        _assert_silent(speaker, right._replace(query=dict.fromkeys(right.query, f"\n{MARKER}")), ANSWERS[0])
    if speaker.signature_field:
        forged = speaker.signed({**speaker.fields(FACTS)}, facts=FACTS)
        body = forged.body.replace(b'"' + speaker.signature_field.encode() + b'":"', b'"x":"', 1)
        with_marker = body[:-1] + b',"' + speaker.signature_field.encode() + b'":"' + MARKER.encode() + b'"}'
        _assert_silent(speaker, forged._replace(body=with_marker), ANSWERS[0])
