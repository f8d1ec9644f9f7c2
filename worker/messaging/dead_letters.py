"""The messages that were put aside: what could not be decoded or posted, for a person to look at.

To look at a message takes it out and puts it back behind the others: the broker counts how often one is
returned to it, and throws away what comes back too often. It is put back, and that is confirmed, before it is
taken out, so that a crash between leaves it twice and never loses it; twice is harmless, as everywhere here.
A full queue refuses what is put back: that is held until the others were looked at, which makes room.
Returned at once it would be the next to be taken, and again, until the broker has counted too often.

Anyone with the broker's password can put a message there. One that a gateway or a worker has signed is
authentic; what asks for money in any other is a stranger's word, or that of a version that did not sign.
Workers put those into a queue of their own; versions before did not.
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
    BATCH_QUESTIONS_MAX,
    MESSAGE_TYPE,
    Batch,
    encode,
    read_batch,
    read_unsigned_batch,
    unix_ms,
)

ID_DIGITS: Final = 32
"""So many that nobody can make two messages of one id, to have one looked at and the other sent back."""

UNCOUNTED_MAX: Final = 1_000
"""So many more than a queue says are looked at: two who look at once would take turns without end."""

REASON_CHARACTERS_MAX: Final = 1_000


class DeadLetter(msgspec.Struct, frozen=True):
    """One that was put aside."""

    id: str
    """Made from its content: the same wherever it is put."""

    reason: str
    put_aside_at: datetime | None
    message_type: str | None
    authentic: bool
    """Whether a gateway or worker has signed it. Its reason and time are nobody's word even then."""

    credits: list[Credit]
    """What it asks to be paid; none if it can't be decoded."""

    defect: str
    """Why it can't be decoded; "" if it can."""

    body: bytes
    queue: str = DEAD_QUEUE

    @property
    def can_be_requeued(self) -> bool:
        """Whether a worker could do anything with it but put it aside again."""
        return bool(self.credits)


class _Disposition(Enum):
    """What becomes of a message that was taken out."""

    STAYS = "stays"
    SENT_BACK = "sent back"
    GONE = "gone"


_LOWEST_PRIORITY: Final = 0
"""Of what is put back. From RabbitMQ 4.0 on it would else come before what has less, and hide it."""

Choose = Callable[[DeadLetter], bool]
Decide = Callable[[DeadLetter], _Disposition]

BOTH: Final = (DEAD_QUEUE, UNSIGNED_QUEUE)


async def list_all(settings: BrokerSettings, queues: Sequence[str] = BOTH) -> list[DeadLetter]:
    """Return all that is put aside. Raises BrokerUnavailable, and SettingsError where there is no broker."""
    return [message for message, _ in await _sort_queues(settings, queues, lambda _: _Disposition.STAYS)]


async def requeue(settings: BrokerSettings, choose: Choose, queues: Sequence[str] = BOTH) -> list[DeadLetter]:
    """Have workers try those again that are chosen and can be decoded; return them. Raises as `list_all` does.

    They are signed anew and go to the late queue, where credits are posted with nobody waiting. One whose
    credit is posted by then moves nothing.
    """

    def decide(message: DeadLetter) -> _Disposition:
        return _Disposition.SENT_BACK if message.can_be_requeued and choose(message) else _Disposition.STAYS

    sorted_ = await _sort_queues(settings, queues, decide)
    return [message for message, fate in sorted_ if fate is _Disposition.SENT_BACK]


async def discard(settings: BrokerSettings, choose: Choose, queues: Sequence[str] = BOTH) -> list[DeadLetter]:
    """Remove those that are chosen for good; return them. Raises as `list_all` does."""
    sorted_ = await _sort_queues(
        settings, queues, lambda message: _Disposition.GONE if choose(message) else _Disposition.STAYS
    )
    return [message for message, fate in sorted_ if fate is _Disposition.GONE]


async def count_unsigned(settings: BrokerSettings) -> int:
    """Return how many messages are kept apart that nobody has signed. Raises as `list_all` does."""
    _require_broker(settings)
    async with _outages_as_unavailable(settings), _declared_channel(settings) as channel:
        return await _count(channel, UNSIGNED_QUEUE)


async def _sort_queues(
    settings: BrokerSettings, queues: Sequence[str], decide: Decide
) -> list[tuple[DeadLetter, _Disposition]]:
    """Take each message out once, and put it where it is to go.

    What is put back is marked, and the first mark that comes again ends the round: the number that a quorum
    queue tells of its messages may be out of date.
    """
    _require_broker(settings)
    keys, mark, sorted_ = read_message_keys(settings), uuid4().hex, []
    async with _outages_as_unavailable(settings), _declared_channel(settings) as channel:
        wire = await raw_channel(channel)
        for queue in queues:
            held: list[tuple[DeliveredMessage, DeadLetter]] = []
            for _ in range(await _count(channel, queue) + UNCOUNTED_MAX):
                taken = await wire.basic_get(queue)
                if isinstance(taken.delivery, Basic.GetEmpty):
                    break
                if taken.header.properties.message_id == mark:
                    await wire.basic_reject(taken.delivery_tag or 0, requeue=True)
                    break
                message = _read(keys, taken, queue)
                fate = decide(message)
                if not await _settle(wire, keys, taken, message, fate, mark):
                    held.append((taken, message))
                sorted_.append((message, fate))
            for taken, message in held:
                if not await _settle(wire, keys, taken, message, _Disposition.STAYS, mark):
                    await wire.basic_reject(taken.delivery_tag or 0, requeue=True)
    return sorted_


def _require_broker(settings: BrokerSettings) -> None:
    if settings.url == MEMORY:
        raise SettingsError("[broker] url: there is no broker, and so nothing that was put aside")


@asynccontextmanager
async def _outages_as_unavailable(settings: BrokerSettings) -> AsyncIterator[None]:
    """Raise SettingsError for a broker that refuses us, BrokerUnavailable for one that does not answer."""
    try:
        yield
    except BROKER_FAULTS as error:
        await require_access(settings)
        raise BrokerUnavailable(f"no answer from the broker: {type(error).__name__}: {reason_of(error)}") from error


@asynccontextmanager
async def _declared_channel(settings: BrokerSettings) -> AsyncIterator[AbstractChannel]:
    """Yield a channel, when all queues are there."""
    async with (
        await connect_to_any(settings) as connection,
        connection.channel(on_return_raises=True) as channel,
    ):
        await declare_topology(channel, settings.shards)
        yield channel


async def _count(channel: AbstractChannel, queue: str) -> int:
    return (await channel.get_queue(queue)).declaration_result.message_count or 0


async def _settle(  # noqa: PLR0913, PLR0917  (a message, its fate, and what that takes)
    channel: Channel,
    keys: MessageKeys,
    taken: DeliveredMessage,
    message: DeadLetter,
    fate: _Disposition,
    mark: str,
) -> bool:
    """Do with a message what was decided; return when the broker has it where it is to be.

    Returns False, and leaves it taken out, if it is to stay and its queue is full.
    """
    copies: list[tuple[str, str | None, bytes]] = []
    if fate is _Disposition.STAYS:
        copies = [(message.queue, message.message_type, message.body)]
    elif fate is _Disposition.SENT_BACK:
        copies = [(LATE_QUEUE, MESSAGE_TYPE, body) for body in _signed(keys, message.credits)]
    try:
        for queue, message_type, body in copies:
            properties = Basic.Properties(
                delivery_mode=2,
                message_id=mark,
                priority=_LOWEST_PRIORITY,
                headers={"reason": message.reason},
                message_type=repeated_type(message_type),
                timestamp=taken.header.properties.timestamp,
            )
            await channel.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)
    except PublishError:  # returned, because the queue is gone
        raise
    except DeliveryError as refused:
        if fate is not _Disposition.STAYS:
            raise
        drop_traceback(refused)
        return False
    await channel.basic_ack(taken.delivery_tag or 0)
    return True


def _signed(keys: MessageKeys, credits_: Sequence[Credit]) -> Iterator[bytes]:
    """Return the messages that ask for the credits, each within the bounds that workers keep to."""
    payload = encode(Batch(0, unix_ms(), list(credits_)))
    fits = len(credits_) <= BATCH_QUESTIONS_MAX and len(payload) <= BATCH_BYTES_MAX
    if fits or len(credits_) == 1:
        yield keys.sign(Purpose.DEAD, payload)
        return
    half = len(credits_) // 2
    yield from _signed(keys, credits_[:half])
    yield from _signed(keys, credits_[half:])


def _read(keys: MessageKeys, taken: DeliveredMessage, queue: str) -> DeadLetter:
    body, properties = taken.body, taken.header.properties
    batch, authentic, defect = _batch_of(keys, body, properties.message_type)
    return DeadLetter(
        # With the length of the body, so that no other type and body are written the same.
        id=sha256(f"{len(body)} {properties.message_type}\n".encode() + body).hexdigest()[:ID_DIGITS],
        reason=_reason(taken),
        put_aside_at=properties.timestamp and properties.timestamp.astimezone(UTC),
        message_type=properties.message_type,
        authentic=authentic,
        credits=[question for question in batch.questions if isinstance(question, Credit)],
        defect=defect,
        body=body,
        queue=queue,
    )


def _batch_of(keys: MessageKeys, body: bytes, message_type: str | None) -> tuple[Batch, bool, str]:
    """Return what a message holds, whether it is authentic, and why it can't be decoded."""
    try:
        return read_batch(keys, body, message_type, Purpose.BATCH, Purpose.DEAD), True, ""
    except PoisonMessage:
        verified = keys.verify(body, Purpose.BATCH, Purpose.DEAD)
        authentic = message_type == MESSAGE_TYPE and verified is not None
    try:
        return read_unsigned_batch(body, message_type), authentic, ""
    except PoisonMessage as poison:
        return Batch(0, 0, []), authentic, str(poison)


def _reason(taken: DeliveredMessage) -> str:
    """Return what a worker wrote, or why the broker itself moved the message."""
    headers = taken.header.properties.headers or {}
    said = headers.get("reason") or headers.get("x-first-death-reason")
    return said[:REASON_CHARACTERS_MAX] if isinstance(said, str) else "unknown"
