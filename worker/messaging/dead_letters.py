"""Lists, requeues and discards dead letters: messages that workers could not decode or post.

To read a message without removing it, a copy is published to the end of the queue and the original is
acknowledged. Returning the original to the broker would count as a redelivery, and the broker drops messages
that are redelivered too often. The copy is confirmed before the acknowledgement, so a crash in between leaves
two of them, which is harmless, and never none. A full queue refuses the copy: then the original is held until
the other messages were processed, which makes room. Returned at once it would be delivered next, again and
again, until the broker drops it.

Anyone with the broker's password can publish to these queues. A message that a gateway or worker has signed is
authentic. Any other may be forged, or be of a version that did not sign. Workers publish those to a queue of
their own; earlier versions did not.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from typing import Final
from uuid import uuid4

import msgspec
from aio_pika.abc import AbstractChannel
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic

from shared.broker.access import require_access
from shared.broker.connection import BROKER_FAULTS, connect_to_any, raw_channel
from shared.broker.losses import reason_of
from shared.broker.properties import repeated_type
from shared.broker.topology import DEAD_QUEUE, LATE_QUEUE, UNSIGNED_QUEUE, declare_topology
from shared.errors import BrokerUnavailable, PoisonMessage, SettingsError
from shared.message_keys import MessageKeys, Purpose, read_message_keys
from shared.operations import Credit
from shared.runtime import drop_traceback
from shared.settings import MEMORY, BrokerSettings
from shared.wire import (
    BATCH_BYTES_MAX,
    BATCH_OPERATIONS_MAX,
    V2,
    V3,
    Batch,
    UnknownOperation,
    encode_batch,
    read_batch,
    read_unsigned_batch,
    unix_ms,
)

ID_DIGITS: Final = 32
"""The length of a message's id: long enough that nobody can make two messages with the same id, one harmless to be
shown, and another to be requeued."""

UNCOUNTED_MAX: Final = 1_000
"""The most messages that a pass reads beyond a queue's own count of them. Without a limit, two concurrent passes
would never end, because each reads the other's copies."""

REASON_CHARACTERS_MAX: Final = 1_000


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that a worker could not decode or post, and that is kept for a person."""

    id: str
    """A digest of its type and body, so a copy has the same id, in whichever queue."""

    reason: str
    put_aside_at: datetime | None
    message_type: str | None
    authentic: bool
    """Whether a gateway or worker has signed the body. The reason and the time are never signed."""

    credits: list[Credit]
    """The credits in it; none if it can't be decoded."""

    defect: str
    """Why it can't be decoded; "" if it can."""

    body: bytes
    queue: str = DEAD_QUEUE
    unknown_operations: int = 0
    """The number of operations in it that this version can't read. They may be owed."""

    @property
    def can_be_requeued(self) -> bool:
        """Whether a worker may be able to post it, and all of it can be sent back."""
        return bool(self.credits) and not self.unknown_operations


class _Disposition(Enum):
    """How a pass disposes of a message."""

    KEEP = "keep"
    REQUEUE = "requeue"
    DISCARD = "discard"


_LOWEST_PRIORITY: Final = 0
"""The priority of a copy. With a higher one, from RabbitMQ 4.0 on, it would be delivered before those of a lower
priority, and hide them."""

Choose = Callable[[DeadLetter], bool]
Decide = Callable[[DeadLetter], _Disposition]

BOTH: Final = (DEAD_QUEUE, UNSIGNED_QUEUE)
"""The queues of dead letters."""


async def list_all(settings: BrokerSettings, queues: Sequence[str] = BOTH) -> list[DeadLetter]:
    """Return all dead letters. Raises BrokerUnavailable, and SettingsError if there is no broker."""
    return [message for message, _ in await _process_queues(settings, queues, lambda _: _Disposition.KEEP)]


async def requeue(settings: BrokerSettings, choose: Choose, queues: Sequence[str] = BOTH) -> list[DeadLetter]:
    """Requeue the chosen messages that can be decoded, and return them. Raises as `list_all` does.

    They are signed anew and published to the late queue, whose credits workers post without a reply. A credit
    that is posted by then moves nothing.
    """

    def decide(message: DeadLetter) -> _Disposition:
        return _Disposition.REQUEUE if message.can_be_requeued and choose(message) else _Disposition.KEEP

    processed = await _process_queues(settings, queues, decide)
    return [message for message, disposition in processed if disposition is _Disposition.REQUEUE]


async def discard(settings: BrokerSettings, choose: Choose, queues: Sequence[str] = BOTH) -> list[DeadLetter]:
    """Remove the chosen messages for good, and return them. Raises as `list_all` does."""

    def decide(message: DeadLetter) -> _Disposition:
        return _Disposition.DISCARD if choose(message) else _Disposition.KEEP

    processed = await _process_queues(settings, queues, decide)
    return [message for message, disposition in processed if disposition is _Disposition.DISCARD]


async def count_unsigned(settings: BrokerSettings) -> int:
    """Return the number of messages in the queue of unsigned ones. Raises as `list_all` does."""
    _require_broker(settings)
    async with _outages_as_unavailable(settings), _declared_channel(settings) as channel:
        return await _count(channel, UNSIGNED_QUEUE)


async def _process_queues(
    settings: BrokerSettings, queues: Sequence[str], decide: Decide
) -> list[tuple[DeadLetter, _Disposition]]:
    """Get each message of the queues once, and dispose of it as `decide` returns.

    Copies have the id of this pass as their message id, and the first copy that is delivered ends the pass,
    because the message count of a quorum queue may be out of date.
    """
    _require_broker(settings)
    keys, pass_id, processed = read_message_keys(settings), uuid4().hex, []
    async with _outages_as_unavailable(settings), _declared_channel(settings) as channel:
        raw = await raw_channel(channel)
        for queue in queues:
            held: list[tuple[DeliveredMessage, DeadLetter]] = []
            for _ in range(await _count(channel, queue) + UNCOUNTED_MAX):
                delivered = await raw.basic_get(queue)
                if isinstance(delivered.delivery, Basic.GetEmpty):
                    break
                if delivered.header.properties.message_id == pass_id:
                    await raw.basic_reject(delivered.delivery_tag or 0, requeue=True)
                    break
                message = _read(keys, delivered, queue)
                disposition = decide(message)
                if not await _dispose(raw, keys, delivered, message, disposition, pass_id):
                    held.append((delivered, message))
                processed.append((message, disposition))
            for delivered, message in held:
                if not await _dispose(raw, keys, delivered, message, _Disposition.KEEP, pass_id):
                    await raw.basic_reject(delivered.delivery_tag or 0, requeue=True)
    return processed


def _require_broker(settings: BrokerSettings) -> None:
    if settings.url == MEMORY:
        raise SettingsError("[broker] url: there is no broker, and so nothing that was put aside")


@asynccontextmanager
async def _outages_as_unavailable(settings: BrokerSettings) -> AsyncIterator[None]:
    """Raise SettingsError if the broker refuses our account, BrokerUnavailable if it does not answer."""
    try:
        yield
    except BROKER_FAULTS as error:
        await require_access(settings)
        raise BrokerUnavailable(f"no answer from the broker: {type(error).__name__}: {reason_of(error)}") from error


@asynccontextmanager
async def _declared_channel(settings: BrokerSettings) -> AsyncIterator[AbstractChannel]:
    """Yield a channel, with all queues declared."""
    async with (
        await connect_to_any(settings) as connection,
        connection.channel(on_return_raises=True) as channel,
    ):
        await declare_topology(channel, settings.shards)
        yield channel


async def _count(channel: AbstractChannel, queue: str) -> int:
    return (await channel.get_queue(queue)).declaration_result.message_count or 0


async def _dispose(  # noqa: PLR0913, PLR0917  (a message, its disposition, and what that takes)
    channel: Channel,
    keys: MessageKeys,
    delivered: DeliveredMessage,
    message: DeadLetter,
    disposition: _Disposition,
    pass_id: str,
) -> bool:
    """Publish the copies that a disposition needs, and acknowledge the message once the broker confirms them.

    Returns False, and does not acknowledge, if the message is to be kept and its queue is full.
    """
    copies: list[tuple[str, str | None, bytes]] = []
    if disposition is _Disposition.KEEP:
        copies = [(message.queue, message.message_type, message.body)]
    elif disposition is _Disposition.REQUEUE:
        copies = [(LATE_QUEUE, V2, body) for body in _signed(keys, message.credits)]
    try:
        for queue, message_type, body in copies:
            properties = Basic.Properties(
                delivery_mode=2,
                message_id=pass_id,
                priority=_LOWEST_PRIORITY,
                headers={"reason": message.reason},
                message_type=repeated_type(message_type),
                timestamp=delivered.header.properties.timestamp,
            )
            await channel.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)
    except PublishError:  # returned, because the queue was deleted
        raise
    except DeliveryError as refused:
        if disposition is not _Disposition.KEEP:
            raise
        drop_traceback(refused)
        return False
    await channel.basic_ack(delivered.delivery_tag or 0)
    return True


def _signed(keys: MessageKeys, credits_: Sequence[Credit]) -> Iterator[bytes]:
    """Yield signed messages with the credits, each within the bounds that workers check."""
    payload = encode_batch(Batch(0, unix_ms(), list(credits_)))
    fits = len(credits_) <= BATCH_OPERATIONS_MAX and len(payload) <= BATCH_BYTES_MAX
    if fits or len(credits_) == 1:
        yield keys.sign(Purpose.DEAD, payload)
        return
    half = len(credits_) // 2
    yield from _signed(keys, credits_[:half])
    yield from _signed(keys, credits_[half:])


def _read(keys: MessageKeys, delivered: DeliveredMessage, queue: str) -> DeadLetter:
    body, properties = delivered.body, delivered.header.properties
    batch, authentic, defect = _read_batch(keys, body, properties.message_type)
    return DeadLetter(
        # With the length of the body, so that no two pairs of type and body give the same text.
        id=sha256(f"{len(body)} {properties.message_type}\n".encode() + body).hexdigest()[:ID_DIGITS],
        reason=_reason(delivered),
        put_aside_at=properties.timestamp and properties.timestamp.astimezone(UTC),
        message_type=properties.message_type,
        authentic=authentic,
        credits=[operation for operation in batch.operations if isinstance(operation, Credit)],
        defect=defect,
        body=body,
        queue=queue,
        unknown_operations=sum(isinstance(operation, UnknownOperation) for operation in batch.operations),
    )


def _read_batch(keys: MessageKeys, body: bytes, message_type: str | None) -> tuple[Batch, bool, str]:
    """Return a message's batch, whether it is authentic, and why it can't be decoded, or ""."""
    try:
        return read_batch(keys, body, message_type, Purpose.BATCH, Purpose.DEAD), True, ""
    except PoisonMessage:
        purposes = Purpose.BATCH, Purpose.DEAD
        authentic = message_type in {V2, V3} and keys.verify(body, *purposes, version=message_type) is not None
    try:
        return read_unsigned_batch(body, message_type), authentic, ""
    except PoisonMessage as poison:
        return Batch(0, 0, []), authentic, str(poison)


def _reason(delivered: DeliveredMessage) -> str:
    """Return the reason that a worker wrote, or that of the broker if it moved the message itself."""
    headers = delivered.header.properties.headers or {}
    reason = headers.get("reason") or headers.get("x-first-death-reason")
    return reason[:REASON_CHARACTERS_MAX] if isinstance(reason, str) else "unknown"
