"""The messages between gateway and worker: MessagePack, read and written by msgspec.

A gateway sends a `Batch` of questions to a shard; a worker sends back a list of `BatchReply`, one message per
gateway for all the batches it answered together, with its own id as the AMQP `app_id`: who serves the shard.
A new optional field goes last: older readers pass over it.
"""

from typing import Final

import msgspec

from shared.credit import Credit
from shared.errors import PoisonMessage
from shared.outcome import Holder, Outcome

MESSAGE_TYPE: Final = "credits.v1"
"""The AMQP `type` of every message. A worker puts a type that it doesn't know aside as poison."""


class FindPlayer(msgspec.Struct, frozen=True, array_like=True, tag="player"):
    """Who is this player, and what is the balance in their own currency?"""

    player_id: str


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
    """Names the batch within its gateway's connection."""

    deadline_unix_ms: int
    """When the last of those who wait for an answer gives up, by the gateway's clock: for who looks at it.

    Workers go by the message's own `expiration`, because their clocks may be others.
    """

    questions: list[Question]


class BatchReply(msgspec.Struct, frozen=True, array_like=True):
    """The answers to one batch, in the order of its questions."""

    number: int
    answers: list[Answer]


_encoder = msgspec.msgpack.Encoder()
_batches = msgspec.msgpack.Decoder(Batch)
_replies = msgspec.msgpack.Decoder(list[BatchReply])


def encode(message: Batch | list[BatchReply]) -> bytes:
    """Return the message's bytes."""
    return _encoder.encode(message)


def decode_batch(body: bytes, message_type: str | None) -> Batch:
    """Read a batch. Raises PoisonMessage when it is none of this version's."""
    if message_type != MESSAGE_TYPE:
        raise PoisonMessage(f"message type {message_type!r} is not {MESSAGE_TYPE!r}")
    try:
        return _batches.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonMessage(f"not a batch: {error}") from error


def decode_replies(body: bytes) -> list[BatchReply]:
    """Read a worker's replies. Raises PoisonMessage when they are none of this version's."""
    try:
        return _replies.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PoisonMessage(f"not replies: {error}") from error
