"""The shards that a worker consumes: those of its own setting, and further ones that others have made.

So no queue is without a consumer while workers and gateways are given another number of shards, in whatever
order: a worker that is set to fewer than there are serves them all. One with a larger setting makes more;
the others find them, in order, up to the first that is missing.
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
"""Of the empty batch that looks for a queue: nobody waits for it."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ShardConsumers:
    """A worker's consumers of the shards, on one connection."""

    own: int
    """How many shards the worker's own setting says."""

    worker_id: str
    keys: MessageKeys
    deliver: ConsumerCallback
    consumed: dict[str, int] = field(default_factory=dict)
    """The shards, by their consumers' tags, which are their queues' names."""

    async def consume_own(self, live: Channel) -> None:
        """Consume the shards of the setting, which are declared."""
        for shard in range(self.own):
            await self._consume(live, shard)

    async def consume_others(self, live: Channel, looking: Channel) -> None:
        """Consume what others have made beyond those. `looking` confirms, and raises what is returned."""
        before = len(self.consumed)
        while (shard := self._next()) < SHARDS_MAX and await self._has_queue(looking, shard):
            await self._consume(live, shard)
        if (number := len(self.consumed)) != before:
            _log.info("more shards served", worker=self.worker_id, shards=number, setting=self.own)

    def can_do_without(self, tag: str) -> bool:
        """Note that the broker has ended a consumer; tell whether that is of a shard beyond the setting."""
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

    async def _has_queue(self, looking: Channel, shard: int) -> bool:
        """Tell whether a shard has a queue, by an empty batch, which the broker returns where there is none.

        To declare the queue passively would close the channel, and the broker would log an error each time.
        """
        batch = Batch(0, unix_ms() + _EXPIRATION_MS, [])
        properties = Basic.Properties(delivery_mode=2, message_type=batch.version, expiration=str(_EXPIRATION_MS))
        try:
            await looking.basic_publish(
                self.keys.sign(Purpose.BATCH, encode_batch(batch)),
                routing_key=shard_queue(shard),
                properties=properties,
                mandatory=True,
            )
        except PublishError:
            return False
        except DeliveryError:  # it is full
            return True
        return True
