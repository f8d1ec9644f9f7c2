"""The messages between gateway and worker: signed MessagePack, read and written by msgspec.

A gateway sends a `Batch` of questions to a shard; a worker sends back one `Replies` to each gateway, for all
its batches that it answered together. Credits that are put aside or sent back by hand are a `Batch` that
nobody waits for. Everything that matters is in the signed payload, whom a reply goes to included: AMQP's own
properties are what anyone with the broker's password can write. A new optional field goes last: older
readers pass over it.

A message can be captured and sent again. A repeated batch pays nothing twice, since the ledger posts each
(integration, provider_tx_id) once, and its reply goes to the queue that the batch names and no other. What
was refused in its time could be posted later by it, and so a batch that is older than a day is left to a
person. A repeated reply answers a batch that waits no more, under a number that is never used again.
"""

import re
import time
from typing import Final

import msgspec

from shared.errors import PoisonKeep, PoisonMessage
from shared.message_keys import MAC_BYTES, MessageKeys, Purpose
from shared.operations import Credit
from shared.outcome import Holder, Outcome

MESSAGE_TYPE: Final = "credits.v2"
"""The AMQP `type` of every message. A worker puts a type that it doesn't know aside as poison."""

UNSIGNED_TYPE: Final = "credits.v1"
"""Of earlier versions, which did not sign."""

BATCH_QUESTIONS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 1 << 20
"""A gateway sends more than this in several messages."""

MESSAGE_BYTES_MAX: Final = 2 << 20
"""A larger message is of nobody's making here: a batch is split, and a single question is far smaller."""

STALE_SECONDS: Final = 86_400
"""A batch is left to a person so long after its deadline. The clocks of all machines agree far better."""

BATCH_NUMBER_BITS: Final = 63


class FindPlayer(msgspec.Struct, frozen=True, array_like=True, tag="player"):
    """Who is this player, and what is the balance in their own currency?"""

    player_id: str
    integration: str = ""
    """Who wants to know; "" of a gateway's own question, or of an older one's. In another cell's books the
    same id may be another person's."""


class FindSession(msgspec.Struct, frozen=True, array_like=True, tag="session"):
    """Whose session is this, in which currency?"""

    integration: str
    session_id: str


Lookup = FindPlayer | FindSession
Question = Credit | FindPlayer | FindSession
Answer = Outcome | Holder | None
"""An Outcome for a Credit; for the others a Holder, None for 'no such', or the outcome UNAVAILABLE."""


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Questions that left a gateway together."""

    number: int
    """Names the batch to its gateway; random, so that nobody can guess the next."""

    deadline_unix_ms: int
    """When the last of those who wait for an answer gives up, by the gateway's clock: for who looks at it.

    Workers go by the message's own `expiration`, because their clocks may be others.
    """

    questions: list[Question]
    reply_to: str = ""
    """The reply queue of the gateway that waits; "" if nobody does."""


class BatchReply(msgspec.Struct, frozen=True, array_like=True):
    """The answers to one batch, in the order of its questions."""

    number: int
    answers: list[Answer]


class Replies(msgspec.Struct, frozen=True, array_like=True):
    """What one worker answers to one gateway."""

    reply_to: str
    """The queue that it is meant for."""

    worker_id: str
    batches: list[BatchReply]


_INTEGER: Final = rb"(?:[\x00-\x7f]|\xcc.|\xcd..|\xce.{4}|\xcf.{8})"
_OWN_QUESTION: Final = re.compile(
    rb"[\x93\x94]" + _INTEGER + _INTEGER + rb"(?:\x90|\x91[\x92\x93]\xa6player\xa0\xa0?)"
    rb"(?:[\xa0-\xbf].{0,31}|\xd9..{0,255})?",
    re.DOTALL,
)
"""How MessagePack writes a whole batch of no question, or of that about player "", in this version and the
one before. A batch with a credit is far from it, even where a bit of it was changed on the way."""

_encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(Batch)
_replies = msgspec.msgpack.Decoder(Replies)


def encode(message: Batch | Replies) -> bytes:
    """Return the message's payload, which `MessageKeys.sign` makes a body of."""
    return _encoder.encode(message)


def unix_ms() -> int:
    """Return the time, as deadlines are given."""
    return int(time.time() * 1_000)


def read_batch(keys: MessageKeys, body: bytes, message_type: str | None, *purposes: Purpose) -> Batch:
    """Read a batch that was signed for one of the purposes. Raises PoisonMessage for anything else."""
    batch = _decode_batch(_authentic(keys, body, message_type, *purposes), "owed")
    if (number := len(batch.questions)) > BATCH_QUESTIONS_MAX:
        reason = f"{number} questions, and {BATCH_QUESTIONS_MAX} are the most"
        raise PoisonMessage(reason, "oversized", _worth(batch))
    return batch


def read_unsigned_batch(body: bytes, message_type: str | None) -> Batch:
    """Read a batch that nobody vouches for, of this version or the one before. Raises PoisonMessage."""
    refuse_size(len(body))
    if message_type not in {MESSAGE_TYPE, UNSIGNED_TYPE}:
        raise _unknown_type(message_type)
    return _decode_batch(memoryview(body)[MAC_BYTES if message_type == MESSAGE_TYPE else 0 :])


def refuse_stale(batch: Batch) -> None:
    """Raise PoisonMessage for a batch whose deadline was more than STALE_SECONDS ago."""
    age_seconds = (unix_ms() - batch.deadline_unix_ms) // 1_000
    if age_seconds > STALE_SECONDS:
        raise PoisonMessage(f"stale: its deadline was {age_seconds} s ago", "stale", _worth(batch))


def read_replies(keys: MessageKeys, body: bytes, message_type: str | None, reply_to: str) -> Replies:
    """Read a worker's replies to the gateway whose queue is `reply_to`. Raises PoisonMessage for others."""
    payload = _authentic(keys, body, message_type, Purpose.REPLY)
    try:
        replies = _replies.decode(payload)
    except _UNDECODABLE as error:
        raise PoisonMessage(f"not replies: {error}") from error
    if replies.reply_to != reply_to:
        raise PoisonMessage("replies to another gateway", "unsigned")
    return replies


def _authentic(keys: MessageKeys, body: bytes, message_type: str | None, *purposes: Purpose) -> memoryview:
    refuse_size(len(body))
    if message_type == UNSIGNED_TYPE:
        reason = f"unsigned: of type {UNSIGNED_TYPE!r}, from an earlier version"
        raise PoisonMessage(reason, "unsigned", _worth_unsigned(body))
    if message_type != MESSAGE_TYPE:
        raise _unknown_type(message_type)
    payload = keys.verify(body, *purposes)
    if payload is None:
        keep = _worth_unsigned(body, MAC_BYTES)
        raise PoisonMessage("unsigned: not signed with any of [broker] keys", "unsigned", keep)
    return payload


def _worth(batch: Batch) -> PoisonKeep:
    """Return what may be lost with an authentic batch: whoever only asked has long gone."""
    return "owed" if any(isinstance(question, Credit) for question in batch.questions) else "nothing"


def _worth_unsigned(body: bytes, start: int = 0) -> PoisonKeep:
    """Return what may be lost with a message that nobody vouches for, which is not decoded.

    Nothing, if it is what a gateway with other keys sends by itself, every two seconds and at each look
    whether it is ready: that would fill the queue, and leave no room for its wins.
    """
    return "nothing" if _OWN_QUESTION.fullmatch(body, start) else "unsigned"


def is_fit(size: int) -> bool:
    """Tell whether a message of so many bytes may be one of ours."""
    return size <= MESSAGE_BYTES_MAX


def refuse_size(size: int) -> None:
    """Raise PoisonMessage for a message of so many bytes if it can't be one of ours."""
    if not is_fit(size):
        raise PoisonMessage(f"{size} bytes, and {MESSAGE_BYTES_MAX} are the most", "oversized")


def _unknown_type(message_type: str | None) -> PoisonMessage:
    return PoisonMessage(f"message type {message_type!r} is not {MESSAGE_TYPE!r}")


def _decode_batch(payload: memoryview, keep: PoisonKeep = "unsigned") -> Batch:
    try:
        return _batches.decode(payload)
    except _UNDECODABLE as error:
        raise PoisonMessage(f"not a batch: {error}", keep=keep) from error


_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
