"""Consumes a worker's shards: those of its own setting, and further ones that other workers have declared.

So every queue has a consumer while the number of shards is being changed on workers and gateways, in whatever
order. A worker whose setting is larger declares more shards. The others, whose setting is smaller, find these
one by one, up to the first number that has no queue, and consume them too.
"""

from dataclasses import dataclass, field
from typing import Final

import structlog
from aiormq import Channel
from aiormq.abc import ConsumerCallback
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic

from shared.broker.topology import SHARDS_MAX, consumer_priority, shard_queue
from shared.message_keys import MessageKeys, Purpose
from shared.wire import Batch, encode_batch, unix_ms

_EXPIRATION_MS: Final = 1_000
"""The expiration of the empty batch that tests whether a queue exists, and needs no reply."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ShardConsumers:
    """A worker's consumers of the shards, on one connection."""

    own: int
    """The number of shards in the worker's own setting."""

    worker_id: str
    keys: MessageKeys
    deliver: ConsumerCallback
    consumed: dict[str, int] = field(default_factory=dict)
    """The shards that are consumed, by their consumers' tags, which are the names of their queues."""

    async def consume_own(self, live: Channel) -> None:
        """Consume the shards of the setting, whose queues have been declared."""
        for shard in range(self.own):
            await self._consume(live, shard)

    async def consume_others(self, live: Channel, confirming: Channel) -> None:
        """Consume further shards that others have declared. `confirming` has to confirm, and raise on a return."""
        before = len(self.consumed)
        while (shard := self._next()) < SHARDS_MAX and await self._has_queue(confirming, shard):
            await self._consume(live, shard)
        if (number := len(self.consumed)) != before:
            _log.info("more shards served", worker=self.worker_id, shards=number, setting=self.own)

    def can_do_without(self, tag: str) -> bool:
        """Forget a consumer that the broker has canceled; return whether the channel may stay open without it.

        It may if the consumer's shard is beyond the setting.
        """
        return self.consumed.pop(tag, 0) >= self.own

    def _next(self) -> int:
        consumed = set(self.consumed.values())
        return next(shard for shard in range(SHARDS_MAX + 1) if shard not in consumed)

    async def _consume(self, live: Channel, shard: int) -> None:
        queue = shard_queue(shard)
        self.consumed[queue] = shard
        await live.basic_consume(
            queue,
            self.deliver,
            arguments={"x-priority": consumer_priority(self.worker_id, shard)},
            consumer_tag=queue,
        )

    async def _has_queue(self, confirming: Channel, shard: int) -> bool:
        """Return whether a shard has a queue, by publishing an empty batch, which is returned if it has none.

        A passive declaration would close the channel if there is no queue, and the broker would log an error.
        """
        batch = Batch(0, unix_ms() + _EXPIRATION_MS, [])
        properties = Basic.Properties(delivery_mode=2, message_type=batch.version, expiration=str(_EXPIRATION_MS))
        try:
            await confirming.basic_publish(
                self.keys.sign(Purpose.BATCH, encode_batch(batch)),
                routing_key=shard_queue(shard),
                properties=properties,
                mandatory=True,
            )
        except PublishError:
            return False
        except DeliveryError:  # refused, because the queue is full
            return True
        return True
