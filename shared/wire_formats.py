"""How messages are written, by version: MessagePack arrays, read and written by msgspec.

`credits.v2` has one list of operations and queries, mixed, and one of answers in their order. `operations.v3` has
a list of each, and operations of kinds that the reader may not know. This version reads both. It writes v2 whenever
v2 can express the message, since during an upgrade gateways and workers of the version before read it, and replies
to a batch in the version of that batch.

New optional fields go last in each array: older readers pass over them.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from shared.message_keys import V2, V3
from shared.operations import AnyOperation, Credit
from shared.outcome import Balance, Outcome
from shared.queries import FindPlayer, FindSession, Query, QueryReply

V1: Final = "credits.v1"
"""The AMQP `type` of messages that earlier versions did not sign."""

Answer = Outcome | Balance | None


class UnknownOperation(msgspec.Struct, frozen=True):
    """An operation of a kind that this version does not know, as it was written."""

    encoded: bytes


class UnknownQuery(msgspec.Struct, frozen=True):
    """A query of a kind that this version does not know, as it was written."""

    encoded: bytes


ReceivedOperation = AnyOperation | UnknownOperation
ReceivedQuery = Query | UnknownQuery


class Batch(msgspec.Struct, frozen=True):
    """Operations and queries that left a gateway together."""

    number: int
    """Identifies the batch to its gateway. Random, so that nobody can guess the next one."""

    deadline_unix_ms: int
    """When the last caller that waits for a reply gives up, by the gateway's clock. It is for people: workers go
    by the message's own `expiration`, because their clocks may differ."""

    operations: Sequence[ReceivedOperation]
    queries: Sequence[ReceivedQuery] = ()
    reply_to: str = ""
    """The reply queue of the gateway that waits; "" if none does."""

    version: str = V2
    """The version in which it was written, and is to be replied to."""

    positions: tuple[int, ...] = ()
    """For a v2 batch in which queries stand before operations: the position of each answer in `outcomes + replies`."""

    def __len__(self) -> int:
        return len(self.operations) + len(self.queries)


class BatchReply(msgspec.Struct, frozen=True):
    """The answers to one batch."""

    number: int
    outcomes: Sequence[Answer]
    """Of its operations. As read from v2, which does not tell them apart, all answers."""

    replies: Sequence[QueryReply] = ()
    """Of its queries."""

    positions: tuple[int, ...] = ()
    """Those of the batch."""

    @property
    def answers(self) -> list[Answer]:
        """The outcomes, then the replies; in v2 in the order of the batch."""
        answers = [*self.outcomes, *self.replies]
        return [answers[position] for position in self.positions] if self.positions else answers


class Replies(msgspec.Struct, frozen=True):
    """The replies of one worker to batches of one gateway, all of one version."""

    reply_to: str
    """The queue that they are meant for."""

    worker_id: str
    batches: Sequence[BatchReply]
    version: str = V2


class _BatchV2(msgspec.Struct, frozen=True, array_like=True):
    number: int
    deadline_unix_ms: int
    questions: list[Credit | FindPlayer | FindSession]
    reply_to: str = ""


class _BatchV3(msgspec.Struct, frozen=True, array_like=True):
    number: int
    deadline_unix_ms: int
    operations: list[AnyOperation]
    queries: list[Query]
    reply_to: str = ""


class _RawBatchV3(msgspec.Struct, frozen=True, array_like=True):
    number: int
    deadline_unix_ms: int
    operations: list[msgspec.Raw]
    queries: list[msgspec.Raw]
    reply_to: str = ""


class _ReplyV2(msgspec.Struct, frozen=True, array_like=True):
    number: int
    answers: list[Answer]


class _ReplyV3(msgspec.Struct, frozen=True, array_like=True):
    number: int
    outcomes: list[Outcome]
    replies: list[QueryReply]


class _RepliesV2(msgspec.Struct, frozen=True, array_like=True):
    reply_to: str
    worker_id: str
    batches: list[_ReplyV2]


class _RepliesV3(msgspec.Struct, frozen=True, array_like=True):
    reply_to: str
    worker_id: str
    batches: list[_ReplyV3]


_encoder: Final = msgspec.msgpack.Encoder()
_batch_v2: Final = msgspec.msgpack.Decoder(_BatchV2)
_batch_v3: Final = msgspec.msgpack.Decoder(_BatchV3)
_raw_batch_v3: Final = msgspec.msgpack.Decoder(_RawBatchV3)
_operation: Final = msgspec.msgpack.Decoder(AnyOperation)
_query: Final = msgspec.msgpack.Decoder[Query](Query)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_replies_v2: Final = msgspec.msgpack.Decoder(_RepliesV2)
_replies_v3: Final = msgspec.msgpack.Decoder(_RepliesV3)


def version_for(operations: Sequence[ReceivedOperation]) -> str:
    """Return the oldest version that can express a batch of these operations."""
    return V2 if all(type(operation) is Credit for operation in operations) else V3


def encode_batch(batch: Batch) -> bytes:
    """Return the payload of a batch in its version."""
    if batch.version == V2:
        questions = [*batch.operations, *batch.queries]
        return _encoder.encode((batch.number, batch.deadline_unix_ms, questions, batch.reply_to))
    operations = [msgspec.Raw(o.encoded) if isinstance(o, UnknownOperation) else o for o in batch.operations]
    queries = [msgspec.Raw(q.encoded) if isinstance(q, UnknownQuery) else q for q in batch.queries]
    return _encoder.encode((batch.number, batch.deadline_unix_ms, operations, queries, batch.reply_to))


def decode_batch(payload: memoryview, version: str) -> Batch:
    """Read the payload of a batch. Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError."""
    if version != V3:
        return _split(_batch_v2.decode(payload))
    try:
        read = _batch_v3.decode(payload)
    except (msgspec.ValidationError, UnicodeDecodeError):  # perhaps of one operation or query alone
        raw = _raw_batch_v3.decode(payload)
        operations = [_decode_operation(bytes(one)) for one in raw.operations]
        queries = [_decode_query(bytes(one)) for one in raw.queries]
        return Batch(raw.number, raw.deadline_unix_ms, operations, queries, raw.reply_to, V3)
    return Batch(read.number, read.deadline_unix_ms, read.operations, read.queries, read.reply_to, V3)


def _decode_operation(encoded: bytes) -> ReceivedOperation:
    try:
        return _operation.decode(encoded)
    except _UNREADABLE:
        return UnknownOperation(encoded)


def _decode_query(encoded: bytes) -> ReceivedQuery:
    try:
        query: Query = _query.decode(encoded)
    except _UNREADABLE:
        return UnknownQuery(encoded)
    return query


def _split(read: _BatchV2) -> Batch:
    """Return a v2 batch as two lists, with the positions of its answers where it had them mixed."""
    operations = [question for question in read.questions if isinstance(question, Credit)]
    queries = [question for question in read.questions if not isinstance(question, Credit)]
    positions: tuple[int, ...] = ()
    if operations and queries and not all(isinstance(one, Credit) for one in read.questions[: len(operations)]):
        of_operation, of_query = iter(range(len(operations))), iter(range(len(operations), len(read.questions)))
        positions = tuple(next(of_operation if isinstance(one, Credit) else of_query) for one in read.questions)
    return Batch(read.number, read.deadline_unix_ms, operations, queries, read.reply_to, V2, positions)


def encode_replies(replies: Replies) -> bytes:
    """Return the payload of replies in their version."""
    if replies.version == V3:
        batches: list[tuple[object, ...]] = [(one.number, one.outcomes, one.replies) for one in replies.batches]
    else:
        batches = [(one.number, one.answers) for one in replies.batches]
    return _encoder.encode((replies.reply_to, replies.worker_id, batches))


def decode_replies(payload: memoryview, version: str) -> Replies:
    """Read the payload of replies. Raises as `decode_batch` does."""
    if version == V3:
        v3 = _replies_v3.decode(payload)
        batches = [BatchReply(one.number, one.outcomes, one.replies) for one in v3.batches]
        return Replies(v3.reply_to, v3.worker_id, batches, V3)
    v2 = _replies_v2.decode(payload)
    return Replies(v2.reply_to, v2.worker_id, [BatchReply(one.number, one.answers) for one in v2.batches])
