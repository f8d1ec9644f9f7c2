"""The messages between gateway and worker: signed, bounded, and read or refused as poison.

A gateway sends a `Batch` of operations and queries to a shard; a worker sends back one `Replies` to each gateway,
for all its batches that it answered together. Dead letters that are requeued are a `Batch` without a reply queue.
Everything that matters is in the signed payload, the reply queue included: AMQP's own properties are what anyone
with the broker's password can write. How the payload is written is in `shared.wire_formats`.

A message can be captured and sent again. A repeated batch posts nothing twice, since the ledger posts each
(integration, provider_tx_id) once, and its reply goes to the queue that the batch names and no other. An operation
that was refused in its time could be posted later by it, so a batch that is older than a day is left to a person.
A repeated reply answers a batch that waits no more, under a number that is never used again.
"""

import re
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from shared.errors import PoisonKeep, PoisonMessage
from shared.message_keys import MAC_BYTES, V2, V3, MessageKeys, Purpose
from shared.operations import AnyOperation
from shared.queries import Query
from shared.wire_formats import (
    V1,
    Answer,
    Batch,
    BatchReply,
    ReceivedOperation,
    ReceivedQuery,
    Replies,
    UnknownOperation,
    UnknownQuery,
    decode_batch,
    decode_replies,
    encode_batch,
    encode_replies,
    version_for,
)

__all__ = [
    "V1",
    "V2",
    "V3",
    "Answer",
    "Batch",
    "BatchReply",
    "ReceivedOperation",
    "ReceivedQuery",
    "Replies",
    "UnknownOperation",
    "UnknownQuery",
    "encode_batch",
    "encode_replies",
    "version_for",
]

BATCH_OPERATIONS_MAX: Final = 500
"""The bound on operations and queries of one message."""

BATCH_BYTES_MAX: Final = 1 << 20
"""The size above which a gateway sends a batch in several messages."""

MESSAGE_BYTES_MAX: Final = 2 << 20
"""The bound on any message: a batch is split, and a single operation is far smaller."""

STALE_SECONDS: Final = 86_400
"""The age of its deadline at which a batch is left to a person. The clocks of all machines agree far better."""

BATCH_NUMBER_BITS: Final = 63

Question = AnyOperation | Query
"""What a gateway may call the ledger with."""

_INTEGER: Final = rb"(?:[\x00-\x7f]|\xcc.|\xcd..|\xce.{4}|\xcf.{8})"
_PROBE: Final = re.compile(
    rb"[\x93\x94]" + _INTEGER + _INTEGER + rb"(?:\x90|\x91[\x92\x93]\xa6player\xa0\xa0?)"
    rb"(?:[\xa0-\xbf].{0,31}|\xd9..{0,255})?",
    re.DOTALL,
)
"""How MessagePack writes a whole v1 or v2 batch that is empty, or has only the query about player "". A batch with
a credit is far from it, even where a bit of it was changed on the way."""


def unix_ms() -> int:
    """Return the time, as deadlines are given."""
    return int(time.time() * 1_000)


def read_batch(keys: MessageKeys, body: bytes, message_type: str | None, *purposes: Purpose) -> Batch:
    """Read a batch that was signed for one of the purposes. Raises PoisonMessage for anything else."""
    payload, version = _authentic(keys, body, message_type, *purposes)
    batch = _decode_batch(payload, version, "owed")
    if len(batch) > BATCH_OPERATIONS_MAX:
        reason = f"{len(batch)} questions, and {BATCH_OPERATIONS_MAX} are the most"
        raise PoisonMessage(reason, "oversized", _worth(batch))
    return batch


def read_unsigned_batch(body: bytes, message_type: str | None) -> Batch:
    """Read a batch whose signature is not verified, of any version. Raises PoisonMessage."""
    refuse_size(len(body))
    if message_type not in {V1, V2, V3}:
        raise _unknown_type(message_type)
    return _decode_batch(memoryview(body)[0 if message_type == V1 else MAC_BYTES :], message_type)


def refuse_stale(batch: Batch) -> None:
    """Raise PoisonMessage for a batch whose deadline was more than STALE_SECONDS ago."""
    age_seconds = (unix_ms() - batch.deadline_unix_ms) // 1_000
    if age_seconds > STALE_SECONDS:
        raise PoisonMessage(f"stale: its deadline was {age_seconds} s ago", "stale", _worth(batch))


def read_replies(keys: MessageKeys, body: bytes, message_type: str | None, reply_to: str) -> Replies:
    """Read a worker's replies to the gateway whose queue is `reply_to`. Raises PoisonMessage for others."""
    payload, version = _authentic(keys, body, message_type, Purpose.REPLY)
    try:
        replies = decode_replies(payload, version)
    except _UNDECODABLE as error:
        raise PoisonMessage(f"not replies: {error}") from error
    if replies.reply_to != reply_to:
        raise PoisonMessage("replies to another gateway", "unsigned")
    return replies


def owed(operations: Sequence[ReceivedOperation]) -> list[ReceivedOperation]:
    """Return the operations that are owed, as an unknown one may be."""
    return [o for o in operations if isinstance(o, UnknownOperation) or o.IS_OWED]


def _authentic(keys: MessageKeys, body: bytes, message_type: str | None, *purposes: Purpose) -> tuple[memoryview, str]:
    """Return the payload and the version of a signed body. Raises PoisonMessage."""
    refuse_size(len(body))
    if message_type == V1:
        raise PoisonMessage(f"unsigned: of type {V1!r}, from an earlier version", "unsigned", _worth_unsigned(body))
    if message_type not in {V2, V3}:
        raise _unknown_type(message_type)
    payload = keys.verify(body, *purposes, version=message_type)
    if payload is None:
        keep = _worth_unsigned(body, MAC_BYTES)
        raise PoisonMessage("unsigned: not signed with any of [broker] keys", "unsigned", keep)
    return payload, message_type


def _worth(batch: Batch) -> PoisonKeep:
    """Return what may be lost with an authentic batch: nobody waits for the replies to its queries any more."""
    return "owed" if owed(batch.operations) else "nothing"


def _worth_unsigned(body: bytes, start: int = 0) -> PoisonKeep:
    """Return what may be lost with a message whose signature is not ours, and which is not decoded.

    Nothing, if it is a probe, which a gateway with other keys sends every two seconds and at each check of its
    readiness: probes would fill the queue, and leave no room for its wins.
    """
    return "nothing" if _PROBE.fullmatch(body, start) else "unsigned"


def is_fit(size: int) -> bool:
    """Tell whether a message of this many bytes may be one of ours."""
    return size <= MESSAGE_BYTES_MAX


def refuse_size(size: int) -> None:
    """Raise PoisonMessage for a message of this many bytes if it can't be one of ours."""
    if not is_fit(size):
        raise PoisonMessage(f"{size} bytes, and {MESSAGE_BYTES_MAX} are the most", "oversized")


def _unknown_type(message_type: str | None) -> PoisonMessage:
    return PoisonMessage(f"message type {message_type!r} is neither {V2!r} nor {V3!r}")


def _decode_batch(payload: memoryview, version: str, keep: PoisonKeep = "unsigned") -> Batch:
    try:
        return decode_batch(payload, version)
    except _UNDECODABLE as error:
        raise PoisonMessage(f"not a batch: {error}", keep=keep) from error


_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
