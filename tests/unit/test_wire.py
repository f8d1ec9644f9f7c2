"""The messages between gateway and worker: what one signed, the other reads; all else is poison."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import PoisonMessage, SettingsError
from shared.message_keys import KEY_BYTES_MIN, MAC_BYTES, MessageKeys, Purpose, read_message_keys
from shared.money import MINOR_MAX
from shared.operations import Credit, Kind, Wallet
from shared.outcome import Balance, Outcome, OutcomeCode, Receipt
from shared.queries import FindPlayer, FindSession, Query
from shared.settings import BrokerSettings
from shared.wire import (
    BATCH_OPERATIONS_MAX,
    MESSAGE_BYTES_MAX,
    STALE_SECONDS,
    V1,
    V2,
    Batch,
    BatchReply,
    Replies,
    encode_batch,
    encode_replies,
    read_batch,
    read_replies,
    read_unsigned_batch,
    refuse_stale,
    unix_ms,
)

OLD, NEW, OTHERS = (MessageKeys([letter * KEY_BYTES_MIN]) for letter in (b"o", b"n", b"x"))
KEYS = NEW
QUEUE: Final = "amq.gen-one"

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
QUERIES: list[Query] = [FindPlayer("anna"), FindSession("gpas", "session")]
BATCH = Batch(1, 1_700_000_000_000, [FULL, SMALLEST], QUERIES, QUEUE)
ANSWERS = [
    Outcome(OutcomeCode.POSTED, Receipt("id", "EUR", 1, 2, 3, 4)),
    Outcome(OutcomeCode.CONFLICT, mismatched_fields=("amount_minor", "game_id")),
    Outcome(OutcomeCode.MALFORMED, detail="amount"),
    Balance("anna", "EUR", 1, 2),
    None,
]


def signed(payload: bytes, purpose: Purpose = Purpose.BATCH) -> bytes:
    return KEYS.sign(purpose, payload)


def read(body: bytes, message_type: str | None = V2) -> Batch:
    return read_batch(KEYS, body, message_type, Purpose.BATCH)


def read_reply(body: bytes, queue: str = QUEUE) -> Replies:
    return read_replies(KEYS, body, V2, queue)


def fault(read_: Callable[..., object], *arguments: Any) -> PoisonMessage:
    with pytest.raises(PoisonMessage) as poison:
        read_(*arguments)
    return poison.value


def test_worker_reads_every_field_that_a_gateway_sent() -> None:
    assert read(signed(encode_batch(BATCH))) == BATCH


def test_gateway_reads_every_field_that_a_worker_answered() -> None:
    replies = Replies(QUEUE, "worker", [BatchReply(1, ANSWERS), BatchReply(2, [])])
    assert read_reply(signed(encode_replies(replies), Purpose.REPLY)) == replies


@pytest.mark.parametrize("result", OutcomeCode)
def test_every_result_is_carried(result: OutcomeCode) -> None:
    replies = Replies(QUEUE, "worker", [BatchReply(1, [Outcome(result)])])
    assert read_reply(signed(encode_replies(replies), Purpose.REPLY)) == replies


def test_older_worker_passes_over_a_field_that_a_newer_gateway_added() -> None:
    fields = msgspec.msgpack.decode(encode_batch(BATCH))
    fields[2][0].append("new of credits")
    newer = msgspec.msgpack.encode([*fields, "new of batches"])
    assert read(signed(newer)) == BATCH


def test_newer_worker_reads_a_credit_without_the_optional_fields() -> None:
    older = msgspec.msgpack.encode([1, 2, [["credit", "klas", "1", "anna", "EUR", 0]]])
    assert read(signed(older)).operations == [SMALLEST]


def test_question_for_a_balance_is_read_by_workers_and_from_gateways_of_either_version() -> None:
    class Before(msgspec.Struct, frozen=True, array_like=True, tag="player"):
        player_id: str

    older = msgspec.msgpack.encode([1, 2, [Before("anna")], QUEUE])
    assert read(signed(older)).queries == [FindPlayer("anna")]
    newer = msgspec.msgpack.encode(FindPlayer("anna", "klas"))
    assert msgspec.msgpack.decode(newer, type=Before) == Before("anna")


@pytest.mark.parametrize("message_type", [None, "", "credits.v3"])
def test_message_of_another_version_is_put_aside_unread(message_type: str | None) -> None:
    poison = fault(read, signed(encode_batch(BATCH)), message_type)
    assert (poison.kind, "credits.v2" in str(poison)) == ("undecodable", True)


def test_message_of_the_version_before_is_put_aside_as_unsigned_and_can_be_looked_at() -> None:
    before = msgspec.msgpack.encode([1, 2, [["credit", "klas", "1", "anna", "EUR", 0]]])
    poison = fault(read, before, V1)
    assert (poison.kind, "earlier version" in str(poison)) == ("unsigned", True)
    assert read_unsigned_batch(before, V1).operations == [SMALLEST]
    assert read_unsigned_batch(OTHERS.sign(Purpose.BATCH, before), V2).operations == [SMALLEST]


PROBES = {"nothing, to look for a shard": [], "whether the books answer": [FindPlayer("")]}


@pytest.mark.parametrize("queries", PROBES.values(), ids=PROBES)
def test_nothing_is_lost_with_unsigned_probes_that_a_gateway_sends_by_itself(queries: list[Query]) -> None:
    payload = encode_batch(Batch((1 << 63) - 1, unix_ms(), [], queries, "amq.gen-Bj2pTWmFQ5qXb8kCk4mGxA"))
    before = msgspec.msgpack.encode([1, 2, [msgspec.to_builtins(query) for query in queries]])
    assert fault(read, OTHERS.sign(Purpose.BATCH, payload)).keep == "nothing"
    assert fault(read, before, V1).keep == "nothing"


def test_unsigned_message_that_may_hold_a_credit_is_kept() -> None:
    smallest = Credit("k", "1", "a", "EUR", 0)
    before = msgspec.msgpack.encode([0, 0, [["credit", "k", "1", "a", "EUR", 0]]])
    assert fault(read, before, V1).keep == "unsigned"
    for questions in ([smallest], [FindPlayer(""), smallest]):
        body = OTHERS.sign(Purpose.BATCH, msgspec.msgpack.encode((0, 0, questions)))
        assert fault(read, body).keep == "unsigned"
        assert fault(read, body[:-1]).keep == "unsigned", "cut off"
    assert fault(read, b"garbage").keep == "unsigned"
    body = OTHERS.sign(Purpose.BATCH, encode_batch(Batch((1 << 63) - 1, unix_ms(), [smallest], reply_to=QUEUE)))
    for bit in range(8 * MAC_BYTES, 8 * len(body)):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        assert fault(read, bytes(flipped)).keep == "unsigned"
    assert fault(read, signed(encode_batch(Batch(0, 0, []))), "credits.v3").keep == "unsigned"


FORGED = {
    "nothing": b"",
    "no MAC": encode_batch(BATCH),
    "a MAC of zeros": bytes(MAC_BYTES) + encode_batch(BATCH),
    "another's key": OTHERS.sign(Purpose.BATCH, encode_batch(BATCH)),
    "signed as a reply": signed(encode_batch(BATCH), Purpose.REPLY),
    "signed as put aside": signed(encode_batch(BATCH), Purpose.DEAD),
    "only half of the MAC": signed(encode_batch(BATCH))[MAC_BYTES // 2 :],
    "truncated": signed(encode_batch(BATCH))[:-1],
    "trailing bytes": signed(encode_batch(BATCH)) + b"\x00",
}


@pytest.mark.parametrize("body", FORGED.values(), ids=FORGED)
def test_what_no_gateway_signed_is_not_even_decoded(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.wire.decode_batch", None)
    assert fault(read, body).kind == "unsigned"


@given(position=st.integers(0, len(signed(encode_batch(BATCH))) - 1), bit=st.integers(0, 7))
def test_every_bit_of_a_message_is_signed(position: int, bit: int) -> None:
    body = bytearray(signed(encode_batch(BATCH)))
    body[position] ^= 1 << bit
    assert fault(read, bytes(body)).kind == "unsigned"


def test_reply_is_believed_by_the_gateway_that_it_is_for_and_no_other() -> None:
    body = signed(encode_replies(Replies(QUEUE, "worker", [BatchReply(1, ANSWERS)])), Purpose.REPLY)
    assert read_reply(body).batches[0].number == 1
    assert fault(read_reply, body, "amq.gen-other").kind == "unsigned"
    assert fault(read_reply, signed(encode_batch(BATCH))).kind == "unsigned"


@pytest.mark.parametrize("questions", [BATCH_OPERATIONS_MAX, BATCH_OPERATIONS_MAX + 1, 250_000])
def test_batch_of_more_questions_than_a_gateway_sends_is_put_aside(questions: int) -> None:
    body = signed(encode_batch(Batch(1, 2, [], [FindPlayer("a")] * questions)))
    if questions == BATCH_OPERATIONS_MAX:
        assert len(read(body)) == questions
    else:
        assert fault(read, body).kind == "oversized"


def test_message_of_more_bytes_than_the_bound_is_read_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MessageKeys, "verify", None)
    body = bytes(MESSAGE_BYTES_MAX + 1)
    assert {fault(read, body).kind, fault(read_reply, body).kind} == {"oversized"}
    assert fault(read_unsigned_batch, body, V2).kind == "oversized"


@pytest.mark.parametrize(("age_seconds", "stale"), [(-60, False), (STALE_SECONDS - 60, False), (90_000, True)])
def test_batch_is_stale_a_day_after_its_deadline(age_seconds: int, stale: bool) -> None:  # noqa: FBT001
    batch = Batch(1, unix_ms() - 1_000 * age_seconds, [])
    if stale:
        assert fault(refuse_stale, batch).kind == "stale"
    else:
        refuse_stale(batch)


def test_keys_are_rotated_while_messages_by_both_are_under_way() -> None:
    by_old, by_new = (keys.sign(Purpose.BATCH, b"payload") for keys in (OLD, NEW))
    both = MessageKeys([b"n" * KEY_BYTES_MIN, b"o" * KEY_BYTES_MIN])
    assert [bytes(both.verify(body, Purpose.BATCH) or b"") for body in (by_old, by_new)] == [b"payload"] * 2
    assert both.sign(Purpose.BATCH, b"payload") == by_new
    assert (OLD.verify(by_new, Purpose.BATCH), NEW.verify(by_old, Purpose.BATCH)) == (None, None)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([], "there is none"),
        (["k" * KEY_BYTES_MIN, "hunter2" * 4], "key 2 of 2 has 28 bytes"),
        (["env:NO_SUCH_VARIABLE"], "env:NO_SUCH_VARIABLE) is missing"),
    ],
)
def test_missing_or_short_key_is_refused_in_one_line(keys: Sequence[str], complaint: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_message_keys(BrokerSettings(url="amqp://a", keys=tuple(keys)))
    told = str(refused.value)
    assert told.startswith("[broker] keys: ")
    assert complaint in told
    assert "\n" not in told
    assert "hunter2" not in told


POISON = {
    "empty": b"",
    "truncated": encode_batch(BATCH)[:-3],
    "trailing bytes": encode_batch(BATCH) + b"\x00",
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


@pytest.mark.parametrize("payload", POISON.values(), ids=POISON)
def test_poison_is_told_as_poison_and_stops_no_worker(payload: bytes) -> None:
    assert fault(read, signed(payload)).kind == "undecodable"
    assert fault(read_reply, signed(payload, Purpose.REPLY)).kind == "undecodable"
    assert fault(read_unsigned_batch, payload, V1).kind == "undecodable"


@given(payload=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_poison(payload: bytes) -> None:
    assert fault(read, payload).kind == "unsigned"
    try:
        read(signed(payload))
    except PoisonMessage:
        return
