"""A worker's side of the broker: which queues it consumes, and when it takes from what was delivered.

Every worker consumes every shard that has a queue; single active consumers make one of them active on each,
and priorities spread the shards over them. That is an optimization: should two workers ever be given the same
credit, the ledger's unique index and locks decide.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog
from aio_pika.abc import AbstractChannel, AbstractConnection
from aiormq import Channel

from shared.broker.bodies import gather_bodies_if
from shared.broker.connection import BROKER_FAULTS, raw_channel, wait_closed
from shared.broker.topology import LATE_QUEUE, bind_shards, declare_topology
from shared.message_keys import MessageKeys
from shared.wire import is_fit
from worker.ledger.service import LedgerService
from worker.messaging.batches import BatchProcessor
from worker.messaging.dead_letter_publisher import DeadLetterPublisher
from worker.messaging.deliveries import DeliveryBuffer
from worker.messaging.metrics import WorkerMetrics
from worker.messaging.shards import ShardConsumers

SHARD_PREFETCH_MESSAGES: Final = 32
"""Of each shard. A gateway has up to four under way for a worker: this serves eight or more in one batch."""

LATE_PREFETCH_MESSAGES: Final = 8

BIND_EVERY_SECONDS: Final = 2.0
"""How often the exchange and its bindings are made again, and shards looked for that others have made:
nobody tells a worker of either."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Consumer:
    """Serves the shards, one transaction at a time."""

    bookkeeper: LedgerService
    metrics: WorkerMetrics
    keys: MessageKeys
    worker_id: str
    shards: int
    batch_credits_max: int
    stop: asyncio.Event

    async def serve(self, connection: AbstractConnection) -> None:
        """Serve on one connection until it is lost or `stop` is set; then settle what was delivered."""
        inbox = DeliveryBuffer()
        async with (
            connection.channel(publisher_confirms=False) as live,
            connection.channel(publisher_confirms=False) as late,
            connection.channel(on_return_raises=True) as confirming,
            connection.channel(on_return_raises=True) as binding,
        ):
            await declare_topology(binding, self.shards)
            await live.set_qos(prefetch_count=SHARD_PREFETCH_MESSAGES)
            await late.set_qos(prefetch_count=LATE_PREFETCH_MESSAGES)
            shards = ShardConsumers(self.shards, self.worker_id, self.keys, inbox.on_delivery(inbox.live))
            live_wire, late_wire = await raw_channel(live, shards.can_do_without), await raw_channel(late)
            gather_bodies_if(live_wire, inbox.wants_live)
            gather_bodies_if(late_wire, is_fit)  # few are delivered at once
            turns = BatchProcessor(
                self.bookkeeper,
                self.metrics,
                inbox,
                live_wire,
                DeadLetterPublisher(await raw_channel(confirming), self.metrics, self.keys),
                self.keys,
                self.worker_id,
                self.batch_credits_max,
            )
            await shards.consume_own(live_wire)
            await late_wire.basic_consume(LATE_QUEUE, inbox.on_delivery(inbox.late))
            _log.info("worker serves", worker=self.worker_id, shards=self.shards)
            bound = asyncio.ensure_future(self._keep_bound(binding, shards, live_wire))
            try:
                await self._work(turns, inbox, wait_closed(connection, live, late, confirming, binding))
            finally:
                bound.cancel()
                turns.flush_logs()

    async def _keep_bound(self, binding: AbstractChannel, shards: ShardConsumers, live: Channel) -> None:
        """Look for more shards and make the bindings, again and again.

        Where a queue of one of our own shards is gone, the broker closes the channel.
        """
        with suppress(*BROKER_FAULTS):
            wire = await raw_channel(binding)
            while True:
                await shards.consume_others(live, wire)
                await asyncio.sleep(BIND_EVERY_SECONDS)
                await bind_shards(binding, self.shards)

    async def _work(self, turns: BatchProcessor, inbox: DeliveryBuffer, lost_: Awaitable[None]) -> None:
        """Work turn by turn. To stop, take no more than was delivered: closing returns the rest.

        Consumers are not cancelled first: a cancelled one may overlap with its successor on a quorum queue.
        """
        ended, stopping = asyncio.ensure_future(lost_), asyncio.ensure_future(self.stop.wait())
        for sign in (ended, stopping):
            sign.add_done_callback(lambda _: inbox.changed.set())
        try:
            while not (ended.done() or stopping.done()):
                if inbox.has_work():
                    await turns.process_next()
                else:
                    await inbox.wait()
            if not ended.done():
                await turns.process_next()
        finally:
            ended.cancel()
            stopping.cancel()
