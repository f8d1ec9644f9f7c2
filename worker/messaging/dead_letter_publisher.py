"""What a worker puts aside for a person: what it can't decode or post, and what nobody of ours has signed.

What is authentic may be owed, and is kept without a bound. What is not may be anybody's, in any number, and
has a queue of its own that is bounded: a flood of it neither fills the broker's disk nor hides what is owed.
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
from shared.operations import Credit
from shared.runtime import drop_traceback
from shared.wire import MESSAGE_TYPE, Batch, encode, unix_ms
from worker.messaging.metrics import WorkerMetrics

CONFIRM_SECONDS_MAX: Final = 10
"""Longer than a queue needs to get another leader. After that the connection is taken for lost."""


@dataclass(frozen=True, slots=True)
class DeadLetterPublisher:
    """Puts messages aside, over a channel that confirms what it publishes."""

    channel: Channel
    metrics: WorkerMetrics
    keys: MessageKeys
    log: LimitedLog = field(default_factory=lambda: LimitedLog("poison message", "error"))

    async def publish_poison(self, message: DeliveredMessage, fault: PoisonMessage) -> None:
        """Keep a message where its kind belongs, if anywhere, and settle it."""
        self.log.record(fault.kind, queue=message.routing_key, reason=str(fault))
        if fault.keep == "nothing":
            self.metrics.dropped.labels("unsigned" if fault.kind == "unsigned" else "no credits").inc()
        elif await self._keep_poison(message, fault):
            self.metrics.dead.labels(fault.kind).inc()
        else:
            self.metrics.dropped.labels("full").inc()
        await message.channel.basic_ack(message.delivery_tag or 0, wait=False)

    async def publish_unpostable(self, credit: Credit) -> None:
        """Keep a credit that the ledger can't take."""
        body = self.keys.sign(Purpose.DEAD, encode(Batch(0, unix_ms(), [credit])))
        await self._publish(DEAD_QUEUE, body, "unpostable", MESSAGE_TYPE)
        self.metrics.dead.labels("unpostable").inc()

    async def _keep_poison(self, message: DeliveredMessage, fault: PoisonMessage) -> bool:
        """Tell whether the message was kept: what nobody has signed is not, once there is much of it."""
        message_type = repeated_type(message.header.properties.message_type)
        if fault.keep == "owed":
            await self._publish(DEAD_QUEUE, message.body, str(fault), message_type)
            return True
        try:
            await self._publish(UNSIGNED_QUEUE, message.body, str(fault), message_type)
        except PublishError:  # returned: the queue is gone, and comes back with the next connection
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
        # Mandatory: the broker would confirm what it drops because somebody has deleted the queue.
        await self.channel.basic_publish(
            body,
            routing_key=queue,
            properties=properties,
            mandatory=True,
            timeout=CONFIRM_SECONDS_MAX,
        )
