"""The messages between gateway and worker: what one says, the other reads; what nobody says is poison."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.credit import Credit, Kind, Wallet
from shared.errors import PoisonMessage
from shared.money import MINOR_MAX
from shared.outcome import Holder, Outcome, Receipt, Result
from shared.wire import (
    MESSAGE_TYPE,
    Batch,
    BatchReply,
    FindPlayer,
    FindSession,
    decode_batch,
    decode_replies,
    encode,
)

FULL = Credit(
    integration="klas",
    provider_tx_id="транзакция-1",
    player_id="anna",
    currency="EUR",
    amount_minor=MINOR_MAX,
    kind=Kind.FREE_SPIN,
    wallet=Wallet.BONUS,
    round_id="round",
    round_closed=True,
    game_id="game",
    bet_id="bet",
    session_id="session",
    open_session_only=True,
    details={"jackpot_wins": "0.10"},
)
SMALLEST = Credit("klas", "1", "anna", "EUR", 0)
BATCH = Batch(1, 1_700_000_000_000, [FULL, FindPlayer("anna"), SMALLEST, FindSession("gpas", "session")])
ANSWERS = [
    Outcome(Result.POSTED, Receipt("id", "EUR", 1, 2, 3, 4)),
    Outcome(Result.CONFLICT, differing=("amount_minor", "game_id")),
    Outcome(Result.MALFORMED, detail="amount"),
    Holder("anna", "EUR", 1, 2),
    None,
]


def test_worker_reads_every_field_that_a_gateway_sent() -> None:
    assert decode_batch(encode(BATCH), MESSAGE_TYPE) == BATCH


def test_gateway_reads_every_field_that_a_worker_answered() -> None:
    replies = [BatchReply(1, ANSWERS), BatchReply(2, [])]
    assert decode_replies(encode(replies)) == replies


@pytest.mark.parametrize("result", Result)
def test_every_result_is_carried(result: Result) -> None:
    replies = [BatchReply(1, [Outcome(result)])]
    assert decode_replies(encode(replies)) == replies


def test_older_worker_passes_over_a_field_that_a_newer_gateway_added() -> None:
    fields = msgspec.msgpack.decode(encode(BATCH))
    fields[2][0].append("new of credits")
    newer = msgspec.msgpack.encode([*fields, "new of batches"])
    assert decode_batch(newer, MESSAGE_TYPE) == BATCH


def test_newer_worker_reads_a_credit_without_the_optional_fields() -> None:
    older = msgspec.msgpack.encode([1, 2, [["credit", "klas", "1", "anna", "EUR", 0]]])
    assert decode_batch(older, MESSAGE_TYPE).questions == [SMALLEST]


@pytest.mark.parametrize("message_type", [None, "", "credits.v2"])
def test_message_of_another_version_is_put_aside_unread(message_type: str | None) -> None:
    with pytest.raises(PoisonMessage, match=r"credits\.v1"):
        decode_batch(encode(BATCH), message_type)


POISON = {
    "empty": b"",
    "truncated": encode(BATCH)[:-3],
    "trailing bytes": encode(BATCH) + b"\x00",
    "JSON": b'{"number":1}',
    "no batch": msgspec.msgpack.encode({"number": 1}),
    "fields missing": msgspec.msgpack.encode([1]),
    "unknown question": msgspec.msgpack.encode([1, 2, [["withdraw", "anna"]]]),
    "unknown kind": msgspec.msgpack.encode([1, 2, [["credit", "klas", "1", "anna", "EUR", 0, "tip"]]]),
    "a fraction of a cent": msgspec.msgpack.encode([1, 2, [["credit", "klas", "1", "anna", "EUR", 0.5]]]),
    "invalid UTF-8": b"\x93\x01\x02\x91\x92\xa6player\xa2\xff\xfe",
    "a length that lies": b"\x93\x01\x02\xdd\xff\xff\xff\xff",
    "nested too deeply": b"\x94\x01\x02\x90" + b"\x91" * 100_000 + b"\xc0",
}


@pytest.mark.parametrize("body", POISON.values(), ids=POISON)
def test_poison_is_told_as_poison_and_stops_no_worker(body: bytes) -> None:
    with pytest.raises(PoisonMessage):
        decode_batch(body, MESSAGE_TYPE)
    with pytest.raises(PoisonMessage):
        decode_replies(body)


@given(body=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_poison(body: bytes) -> None:
    try:
        decode_batch(body, MESSAGE_TYPE)
    except PoisonMessage:
        return
