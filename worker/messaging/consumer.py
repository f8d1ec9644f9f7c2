"""Connects a worker to its queues, and processes the deliveries batch by batch.

Every worker consumes every shard that has a queue. The broker makes a single consumer active on each, and
priorities spread the shards over the workers. That is only an optimization: if two workers ever get the same
credit, the ledger's unique index and locks keep it from being posted twice.
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
"""The prefetch of each shard. A gateway has up to four messages in flight to a worker, so this allows for a batch
with the messages of eight gateways or more."""

LATE_PREFETCH_MESSAGES: Final = 8

BIND_EVERY_SECONDS: Final = 2.0
"""How often a worker declares the exchange and its bindings again, and checks for further shards: it gets no
notice when the former are deleted or the latter declared."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Consumer:
    """Consumes the shards and the late queue, and processes one batch at a time."""

    ledger: LedgerService
    metrics: WorkerMetrics
    keys: MessageKeys
    worker_id: str
    shards: int
    batch_operations_max: int
    stop: asyncio.Event

    async def serve(self, connection: AbstractConnection) -> None:
        """Serve on one connection until it is lost or `stop` is set; then process what was delivered."""
        deliveries = DeliveryBuffer()
        async with (
            connection.channel(publisher_confirms=False) as live,
            connection.channel(publisher_confirms=False) as late,
            connection.channel(on_return_raises=True) as confirming,
            connection.channel(on_return_raises=True) as binding,
        ):
            await declare_topology(binding, self.shards)
            await live.set_qos(prefetch_count=SHARD_PREFETCH_MESSAGES)
            await late.set_qos(prefetch_count=LATE_PREFETCH_MESSAGES)
            shards = ShardConsumers(self.shards, self.worker_id, self.keys, deliveries.on_delivery(deliveries.live))
            live_raw, late_raw = await raw_channel(live, shards.can_do_without), await raw_channel(late)
            gather_bodies_if(live_raw, deliveries.wants_live)
            gather_bodies_if(late_raw, is_fit)  # the prefetch bounds their number
            processor = BatchProcessor(
                self.ledger,
                self.metrics,
                deliveries,
                live_raw,
                DeadLetterPublisher(await raw_channel(confirming), self.metrics, self.keys),
                self.keys,
                self.worker_id,
                self.batch_operations_max,
            )
            await shards.consume_own(live_raw)
            await late_raw.basic_consume(LATE_QUEUE, deliveries.on_delivery(deliveries.late))
            _log.info("worker serves", worker=self.worker_id, shards=self.shards)
            topology = asyncio.ensure_future(self._maintain_topology(binding, shards, live_raw))
            try:
                await self._process(processor, deliveries, wait_closed(connection, live, late, confirming, binding))
            finally:
                topology.cancel()
                processor.flush_logs()

    async def _maintain_topology(self, binding: AbstractChannel, shards: ShardConsumers, live: Channel) -> None:
        """Consume further shards and declare the bindings, every BIND_EVERY_SECONDS.

        If the queue of one of our own shards was deleted, the broker closes the channel, which ends `serve`.
        """
        with suppress(*BROKER_FAULTS):
            confirming = await raw_channel(binding)
            while True:
                await shards.consume_others(live, confirming)
                await asyncio.sleep(BIND_EVERY_SECONDS)
                await bind_shards(binding, self.shards)

    async def _process(self, processor: BatchProcessor, deliveries: DeliveryBuffer, closed: Awaitable[None]) -> None:
        """Process batch after batch, until the connection is closed, or until `stop` is set and a last one is done.

        Closing the connection then returns the other deliveries to the broker. Consumers are not canceled first: a
        canceled one may overlap with its successor on a quorum queue.
        """
        closing, stopping = asyncio.ensure_future(closed), asyncio.ensure_future(self.stop.wait())
        for end in (closing, stopping):
            end.add_done_callback(lambda _: deliveries.changed.set())
        try:
            while not (closing.done() or stopping.done()):
                if deliveries.has_work():
                    await processor.process_next()
                else:
                    await deliveries.wait()
            if not closing.done():
                await processor.process_next()
        finally:
            closing.cancel()
            stopping.cancel()
