"""The messages that were put aside: what could not be decoded or posted, for a person to look at.

To look at a message takes it out and puts it back behind the others: the broker counts how often one is
returned to it, and throws away what comes back too often. It is put back, and that is confirmed, before it is
taken out, so that a crash between leaves it twice and never loses it; twice is harmless, as everywhere here.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from shared.amqp import BROKER_FAULTS, connect_to_any
from shared.credit import Credit
from shared.errors import BrokerUnavailable, PoisonMessage, SettingsError
from shared.settings import MEMORY, BrokerSettings
from shared.topology import DEAD_QUEUE, LATE_QUEUE, declare_queues
from shared.wire import decode_batch

ID_DIGITS: Final = 12


class DeadMessage(msgspec.Struct, frozen=True):
    """One that was put aside."""

    id: str
    """Made from its content: the same wherever it is put."""

    reason: str
    put_aside_at: datetime | None
    message_type: str | None
    credits: list[Credit]
    """What it asks to be paid; none if it can't be decoded."""

    defect: str
    """Why it can't be decoded; "" if it can."""

    body: bytes

    @property
    def can_be_sent_back(self) -> bool:
        """Whether a worker could do anything with it but put it aside again."""
        return bool(self.credits)


Choose = Callable[[DeadMessage], bool]
Where = Callable[[DeadMessage], str | None]
"""To which queue a message goes; None: to none any more."""


async def look(settings: BrokerSettings) -> list[DeadMessage]:
    """Return all that is put aside. Raises BrokerUnavailable, and SettingsError where there is no broker."""
    return [message for message, _ in await _sort(settings, lambda _: DEAD_QUEUE)]


async def send_back(settings: BrokerSettings, choose: Choose) -> list[DeadMessage]:
    """Have workers try those again that are chosen and can be decoded; return them. Raises as `look` does.

    They go to the late queue, where credits are posted with nobody waiting. One whose credit is posted by
    then moves nothing.
    """

    def where(message: DeadMessage) -> str:
        return LATE_QUEUE if message.can_be_sent_back and choose(message) else DEAD_QUEUE

    return [message for message, queue in await _sort(settings, where) if queue == LATE_QUEUE]


async def drop(settings: BrokerSettings, choose: Choose) -> list[DeadMessage]:
    """Remove those that are chosen for good; return them. Raises as `look` does."""
    sorted_ = await _sort(settings, lambda message: None if choose(message) else DEAD_QUEUE)
    return [message for message, queue in sorted_ if queue is None]


async def _sort(settings: BrokerSettings, where: Where) -> list[tuple[DeadMessage, str | None]]:
    """Take each message out once, and put it where it is to go."""
    sorted_ = []
    try:
        async with _channel(settings) as channel:
            await declare_queues(channel, settings.shards)
            queue = await channel.get_queue(DEAD_QUEUE)
            for _ in range(queue.declaration_result.message_count or 0):
                taken = await queue.get(fail=False)
                if taken is None:  # somebody else has taken some meanwhile
                    break
                message = _read(taken)
                if (queue_name := where(message)) is not None:
                    await _put(channel, taken, queue_name)
                await taken.ack()
                sorted_.append((message, queue_name))
    except BROKER_FAULTS as error:
        raise BrokerUnavailable(f"no answer from the broker: {type(error).__name__}: {error}") from error
    return sorted_


@asynccontextmanager
async def _channel(settings: BrokerSettings) -> AsyncIterator[AbstractChannel]:
    if settings.url == MEMORY:
        raise SettingsError("[broker] url: there is no broker, and so nothing that was put aside")
    async with (
        await connect_to_any(settings) as connection,
        connection.channel(publisher_confirms=True) as channel,
    ):
        yield channel


async def _put(channel: AbstractChannel, taken: AbstractIncomingMessage, queue: str) -> None:
    """Publish a copy, and return when the broker has it."""
    copy = aio_pika.Message(
        taken.body,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        headers={"reason": _reason(taken)},
        type=taken.type,
        timestamp=taken.timestamp,
    )
    await channel.default_exchange.publish(copy, routing_key=queue)


def _read(taken: AbstractIncomingMessage) -> DeadMessage:
    credits_: list[Credit] = []
    defect = ""
    try:
        questions = decode_batch(taken.body, taken.type).questions
        credits_ = [question for question in questions if isinstance(question, Credit)]
    except PoisonMessage as poison:
        defect = str(poison)
    return DeadMessage(
        id=sha256(f"{taken.type}\n".encode() + taken.body).hexdigest()[:ID_DIGITS],
        reason=_reason(taken),
        put_aside_at=taken.timestamp and taken.timestamp.astimezone(UTC),
        message_type=taken.type,
        credits=credits_,
        defect=defect,
        body=taken.body,
    )


def _reason(taken: AbstractIncomingMessage) -> str:
    """Return what a worker wrote, or why the broker itself moved the message."""
    said = taken.headers.get("reason") or taken.headers.get("x-first-death-reason")
    return said if isinstance(said, str) else "unknown"
