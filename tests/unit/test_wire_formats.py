"""Messages by version: during an upgrade each side reads what the other writes, and no operation is lost on the way."""

from typing import Final

import msgspec
import pytest

from shared.errors import PoisonMessage
from shared.message_keys import KEY_BYTES_MIN, MessageKeys, Purpose
from shared.operations import Credit, Operation
from shared.outcome import Balance, Outcome, OutcomeCode
from shared.queries import FindPlayer, FindSession
from shared.wire import (
    V2,
    V3,
    Batch,
    BatchReply,
    Replies,
    UnknownOperation,
    UnknownQuery,
    encode_batch,
    encode_replies,
    read_batch,
    read_replies,
    read_unsigned_batch,
    version_for,
)

KEYS: Final = MessageKeys([b"k" * KEY_BYTES_MIN])
QUEUE: Final = "amq.gen-one"
WIN: Final = Credit("klas", "1", "anna", "EUR", 1050)
OTHER: Final = Credit("klas", "2", "ben", "EUR", 1)
BALANCE: Final = Balance("anna", "EUR", 1, 2)
POSTED, REPLAYED = Outcome(OutcomeCode.POSTED), Outcome(OutcomeCode.REPLAYED)


class Gift(Operation, frozen=True, array_like=True, tag="gift"):
    """An operation of a later version."""

    amount_minor: int


GIFT: Final = Gift("klas", "3", "anna", "EUR", 5)


def read(payload: bytes, version: str) -> Batch:
    return read_batch(KEYS, KEYS.sign(Purpose.BATCH, payload, version), version, Purpose.BATCH)


def v2_answers(payload: bytes) -> list[object]:
    """Return the answers as a gateway of the version before reads them: in the order of its questions."""
    _reply_to, _worker_id, [(_number, answers)] = msgspec.msgpack.decode(payload)
    return [answer and answer[0:3] for answer in answers]


def reply(batch: Batch, outcomes: list[Outcome], replies: list[Balance | Outcome | None]) -> bytes:
    """Return what a worker replies to one batch."""
    one = BatchReply(batch.number, outcomes, replies, batch.positions)
    return encode_replies(Replies(batch.reply_to, "worker", [one], batch.version))


def test_batch_of_credits_is_written_as_the_version_before_reads_it() -> None:
    batch = Batch(1, 2, [WIN], [FindPlayer("anna", "klas")], QUEUE, version_for([WIN]))
    assert batch.version == V2
    assert msgspec.msgpack.decode(encode_batch(batch))[2] == [
        ["credit", *msgspec.structs.astuple(WIN)],
        ["player", "anna", "klas"],
    ]


def test_answers_to_a_mixed_batch_of_the_version_before_are_in_its_order() -> None:
    questions = [FindPlayer("anna"), WIN, FindSession("gpas", "s"), OTHER]
    batch = read(msgspec.msgpack.encode((7, 2, questions, QUEUE)), V2)
    assert (batch.operations, batch.queries) == ([WIN, OTHER], [FindPlayer("anna"), FindSession("gpas", "s")])
    assert v2_answers(reply(batch, [POSTED, REPLAYED], [BALANCE, None])) == [
        ["holder", "anna", "EUR"],
        ["outcome", "posted", None],
        None,
        ["outcome", "replayed", None],
    ]


@pytest.mark.parametrize("version", [V2, V3])
def test_batch_and_its_reply_arrive_as_they_were_sent(version: str) -> None:
    sent = Batch(7, 2, [WIN, OTHER], [FindPlayer("anna")], QUEUE, version)
    batch = read(encode_batch(sent), version)
    assert batch == sent
    body = KEYS.sign(Purpose.REPLY, reply(batch, [POSTED, REPLAYED], [BALANCE]), version)
    replies = read_replies(KEYS, body, version, QUEUE)
    assert [(one.number, one.answers) for one in replies.batches] == [(7, [POSTED, REPLAYED, BALANCE])]


def test_operation_that_the_reader_does_not_know_costs_no_other_of_its_batch() -> None:
    later = msgspec.msgpack.encode((7, 2, [WIN, GIFT, OTHER], [FindPlayer("anna")], QUEUE))
    batch = read(later, V3)
    assert batch.operations == [WIN, UnknownOperation(msgspec.msgpack.encode(GIFT)), OTHER]
    assert batch.queries == [FindPlayer("anna")]
    assert read_unsigned_batch(KEYS.sign(Purpose.BATCH, later, V3), V3) == batch


def test_unknown_operation_is_passed_on_as_it_was_written() -> None:
    unknown = UnknownOperation(msgspec.msgpack.encode(GIFT))
    batch = Batch(0, 2, [unknown], version=version_for([unknown]))
    assert batch.version == V3
    assert msgspec.msgpack.decode(encode_batch(batch))[2] == [["gift", "klas", "3", "anna", "EUR", 5]]


@pytest.mark.parametrize("operations", [["nothing"], [["credit"]], [[]], [7]])
def test_what_is_no_operation_at_all_is_kept_whole(operations: list[object]) -> None:
    batch = read(msgspec.msgpack.encode((7, 2, [WIN, *operations], [], QUEUE)), V3)
    assert batch.operations[0] == WIN
    assert batch.operations[1] == UnknownOperation(msgspec.msgpack.encode(operations[0]))


@pytest.mark.parametrize("version", [V2, V3])
def test_payload_of_one_version_is_never_read_as_another(version: str) -> None:
    other = V3 if version == V2 else V2
    payload = encode_batch(Batch(7, 2, [WIN], [FindPlayer("anna")], QUEUE, version))
    with pytest.raises(PoisonMessage):
        read(payload, other)


@pytest.mark.parametrize(("version", "claimed"), [(V2, V3), (V3, V2)])
def test_signature_of_one_version_proves_nothing_in_another(version: str, claimed: str) -> None:
    """Who repeats a captured message with another AMQP type has written a message that nobody signed."""
    body = KEYS.sign(Purpose.BATCH, encode_batch(Batch(7, 2, [WIN], [], QUEUE, version)), version)
    with pytest.raises(PoisonMessage) as poison:
        read_batch(KEYS, body, claimed, Purpose.BATCH)
    assert poison.value.kind == "unsigned"


def test_query_that_the_reader_does_not_know_costs_no_operation_of_its_batch() -> None:
    later = msgspec.msgpack.encode((7, 2, [WIN], [FindPlayer("anna"), ["limits", "anna"]], QUEUE))
    batch = read(later, V3)
    assert batch.operations == [WIN]
    assert batch.queries == [FindPlayer("anna"), UnknownQuery(msgspec.msgpack.encode(["limits", "anna"]))]


def test_credit_that_is_no_text_costs_no_other_of_its_batch() -> None:
    broken = msgspec.msgpack.encode(["credit", "klas", "XX", "anna", "EUR", 1]).replace(b"XX", b"\xff\xfe")
    batch = read(msgspec.msgpack.encode((7, 2, [WIN, msgspec.Raw(broken)], [], QUEUE)), V3)
    assert batch.operations == [WIN, UnknownOperation(broken)]
