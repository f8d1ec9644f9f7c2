"""Publishes dead letters for a person: messages that a worker can't decode or post, or that are not signed.

Authentic messages may hold credits that are owed, so their queue is unbounded. Others may be anybody's, in any
number, so they go to a bounded queue: a flood of them neither fills the broker's disk nor hides what is owed.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic

from shared.broker.properties import repeated_type
from shared.broker.topology import DEAD_QUEUE, UNSIGNED_QUEUE
from shared.errors import PoisonMessage
from shared.log_limit import LimitedLog
from shared.message_keys import MessageKeys, Purpose
from shared.runtime import drop_traceback
from shared.wire import Batch, ReceivedOperation, encode_batch, unix_ms, version_for
from worker.messaging.metrics import WorkerMetrics

CONFIRM_SECONDS_MAX: Final = 10
"""How long to wait for a confirmation, longer than a queue takes to elect a new leader. Then the connection counts
as lost."""


@dataclass(frozen=True, slots=True)
class DeadLetterPublisher:
    """Publishes dead letters on a channel with publisher confirms."""

    channel: Channel
    metrics: WorkerMetrics
    keys: MessageKeys
    log: LimitedLog = field(default_factory=lambda: LimitedLog("poison message", "error"))

    async def publish_poison(self, message: DeliveredMessage, fault: PoisonMessage) -> None:
        """Publish a message that can't be acted on to its queue, if it is to be kept, and acknowledge it."""
        self.log.record(fault.kind, queue=message.routing_key, reason=str(fault))
        if fault.keep == "nothing":
            self.metrics.dropped.labels("unsigned" if fault.kind == "unsigned" else "no credits").inc()
        elif await self._publish_copy(message, fault):
            self.metrics.dead.labels(fault.kind).inc()
        else:
            self.metrics.dropped.labels("full").inc()
        await message.channel.basic_ack(message.delivery_tag or 0, wait=False)

    async def publish_unpostable(self, operation: ReceivedOperation) -> None:
        """Publish an operation that the ledger can't post."""
        batch = Batch(0, unix_ms(), [operation], version=version_for([operation]))
        body = self.keys.sign(Purpose.DEAD, encode_batch(batch), batch.version)
        await self._publish(DEAD_QUEUE, body, "unpostable", batch.version)
        self.metrics.dead.labels("unpostable").inc()

    async def _publish_copy(self, message: DeliveredMessage, fault: PoisonMessage) -> bool:
        """Publish a copy of a message; return False if it is unsigned and the queue of unsigned ones is full."""
        message_type = repeated_type(message.header.properties.message_type)
        if fault.keep == "owed":
            await self._publish(DEAD_QUEUE, message.body, str(fault), message_type)
            return True
        try:
            await self._publish(UNSIGNED_QUEUE, message.body, str(fault), message_type)
        except PublishError:  # returned: the queue was deleted, and is declared again with the next connection
            raise
        except DeliveryError as refused:
            drop_traceback(refused)
            return False
        return True

    async def _publish(self, queue: str, body: bytes, reason: str, message_type: str | None) -> None:
        properties = Basic.Properties(
            delivery_mode=2,
            message_type=message_type,
            headers={"reason": reason[:1_000]},
            timestamp=datetime.now(UTC),
        )
        # Without `mandatory` the broker would confirm a message that it drops because the queue was deleted.
        await self.channel.basic_publish(
            body,
            routing_key=queue,
            properties=properties,
            mandatory=True,
            timeout=CONFIRM_SECONDS_MAX,
        )
