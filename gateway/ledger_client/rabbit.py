"""The ledger over RabbitMQ: a batch out to a shard's queue, its reply back on this connection's own queue.

The reply queue is the broker's to name and new for every connection, so that a reply can never be taken for
another's, and nothing is left of a connection that is lost. When it is lost every call that is under way
fails at once: whether its credits were posted is unknown, and the provider must ask again.

Nobody who can publish to that queue is believed for it: a reply counts if it is signed, for this queue, and
answers a batch that waits. The client makes nothing on the broker but that queue; the rest is the workers'.
"""

import asyncio
import logging
from collections.abc import Sequence
from secrets import randbits
from types import TracebackType
from typing import Final, NamedTuple, Self

import structlog
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic
from prometheus_client import Counter
from prometheus_client.registry import Collector

from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.dispatcher import BatchAnswer, BatchDispatcher
from gateway.ledger_client.questions import merged, split
from gateway.ledger_client.shard_search import ShardSearch
from gateway.ledger_client.unconfirmed import as_unavailable
from gateway.ledger_client.watchdog import UNANSWERED_SECONDS_MAX, UNCONFIRMED_SECONDS_MAX, Watchdog
from shared.broker.access import require_access
from shared.broker.bodies import gather_bodies_if
from shared.broker.connection import keep_connected, raw_channel, wait_closed
from shared.broker.topology import EXCHANGE, shard_queue
from shared.errors import LedgerUnavailable, PoisonMessage
from shared.log_limit import LimitedLog
from shared.message_keys import MAC_BYTES, MessageKeys, Purpose
from shared.operations import Operation
from shared.outcome import Outcome, OutcomeCode
from shared.settings import BrokerSettings
from shared.wire import (
    BATCH_BYTES_MAX,
    BATCH_NUMBER_BITS,
    Answer,
    Batch,
    Question,
    encode_batch,
    is_fit,
    read_replies,
    refuse_size,
    unix_ms,
    version_for,
)

EXCHANGE_LOOK_SECONDS: Final = 0.5
"""How often a gateway looks whether a worker has made the exchange."""

_NO_BROKER: Final = "no connection to the broker"
_NO_EXCHANGE: Final = f"the broker has no exchange {EXCHANGE!r}: no worker has served there yet"

_log = structlog.get_logger()


class _Message(NamedTuple):
    """A batch on its way out."""

    shard: int
    batch: Batch
    body: bytes
    milliseconds: int


class RabbitLedgerClient(LedgerClient):
    """Calls the ledger workers."""

    def __init__(self, settings: BrokerSettings, keys: MessageKeys, in_flight_max: int) -> None:
        """Take `[broker]`, its keys, and how many questions may wait at once."""
        self._settings: Final = settings
        self._keys: Final = keys
        self._lanes: Final = BatchDispatcher(self._send, 1, in_flight_max)
        self._shard_search: Final = ShardSearch(self._lanes, self._send, settings.shards)
        self._stop: Final = asyncio.Event()
        self._pending: Final[dict[int, asyncio.Future[BatchAnswer]]] = {}
        self._dropped: Final = Counter(
            "credits_gateway_dropped_replies",
            "Replies that were not believed, or that nobody waited for, by reason",
            ["reason"],
            registry=None,
        )
        self._dropped_log: Final = LimitedLog("reply dropped", "warning")
        self._channel: Channel | None = None
        self._absence = _NO_BROKER
        self._reply_queue = ""
        self._unconfirmed, self._unanswered = _silences()
        self._connecting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start connecting. Raises SettingsError when the broker refuses us."""
        await require_access(self._settings)
        self._connecting = asyncio.create_task(keep_connected(self._settings, self._serve, self._stop))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Fail what is under way and disconnect."""
        self._stop.set()
        if self._connecting is not None:
            await self._connecting
        await self._lanes.close()
        self._dropped_log.flush()

    def is_overloaded(self, more: int = 0) -> bool:
        """Tell whether who asks now would only make all wait longer."""
        return self._lanes.is_overloaded(more)

    @property
    def in_flight(self) -> int:
        """How many questions wait for their answer."""
        return self._lanes.in_flight

    @property
    def counters(self) -> Sequence[Collector]:
        """Replies that were dropped, and shards in use."""
        return self._dropped, self._shard_search.gauge

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        """Return the ledger's answers by `deadline` on the loop's clock."""
        if self._channel is None:
            return [LedgerUnavailable(self._absence)] * len(questions)
        return await self._lanes.call_all(questions, deadline)

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the answer to a question that goes before all that wait, and is not counted among them."""
        if self._channel is None:
            raise LedgerUnavailable(self._absence)
        return await self._lanes.call_first(question, deadline)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Use one connection until it is lost, silent while there are other nodes, or we stop."""
        if not await self._exchange_is_there(connection):
            return
        channel = await connection.channel(on_return_raises=True)
        replies = await channel.declare_queue(exclusive=True)
        wire = await raw_channel(channel)
        gather_bodies_if(wire, is_fit)
        await wire.basic_consume(replies.name, self._on_reply, no_ack=True)
        self._unconfirmed, self._unanswered = _silences()
        self._reply_queue, self._channel = replies.name, wire
        _log.info("connected to the broker", shards=self._lanes.shards)
        ends = [
            asyncio.ensure_future(self._shard_search.keep_looking()),
            asyncio.ensure_future(wait_closed(connection, channel)),
            asyncio.ensure_future(self._stop.wait()),
        ]
        if len(self._settings.urls) > 1:
            ends += map(asyncio.ensure_future, (self._unconfirmed.expired(), self._unanswered.expired()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._channel = None
            for end in ends:
                end.cancel()
            self._fail_pending("the connection to the broker was lost")

    async def _exchange_is_there(self, connection: AbstractConnection) -> bool:
        """Return when a worker has made the exchange, or False when we stop before."""
        try:
            while not self._stop.is_set():
                try:
                    async with connection.channel() as channel:
                        await channel.get_exchange(EXCHANGE)
                except ChannelNotFoundEntity:
                    if self._absence != _NO_EXCHANGE:
                        _log.warning("no workers yet", reason=_NO_EXCHANGE)
                    self._absence = _NO_EXCHANGE
                    await asyncio.sleep(EXCHANGE_LOOK_SECONDS)
                else:
                    return True
            return False
        finally:
            self._absence = _NO_BROKER

    def _fail_pending(self, reason: str) -> None:
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(LedgerUnavailable(reason))

    async def _on_reply(self, message: DeliveredMessage) -> None:
        message_type = message.header.properties.message_type
        try:
            refuse_size(message.header.body_size or 0)
            replies = read_replies(self._keys, message.body, message_type, self._reply_queue)
        except PoisonMessage as poison:
            self._drop(poison.kind, str(poison))
            return
        self._unanswered.heard()
        for batch in replies.batches:
            reply = self._pending.get(batch.number)
            if reply is None or reply.done():
                self._drop("too late", "no batch of that number waits")
            else:
                reply.set_result(BatchAnswer(replies.worker_id, batch.answers))

    def _drop(self, kind: str, reason: str) -> None:
        self._dropped.labels(kind).inc()
        self._dropped_log.record(kind, reason=reason)

    async def _send(self, shard: int, questions: Sequence[Question], deadline: float) -> BatchAnswer:
        """Publish a batch and return its answers by `deadline`. Raises LedgerUnavailable."""
        channel, loop = self._channel, asyncio.get_running_loop()
        if channel is None:
            raise LedgerUnavailable(self._absence)
        number, milliseconds = randbits(BATCH_NUMBER_BITS), max(1, int((deadline - loop.time()) * 1_000))
        operations, queries = split(questions)
        batch = Batch(number, unix_ms() + milliseconds, operations, queries, self._reply_queue, version_for(operations))
        payload = encode_batch(batch)
        if len(payload) > BATCH_BYTES_MAX:
            if len(questions) > 1:
                return await self._send_parts(shard, questions, deadline, len(payload))
            if not is_fit(MAC_BYTES + len(payload)):
                raise LedgerUnavailable(f"a question of {len(payload)} bytes")
        body = self._keys.sign(Purpose.BATCH, payload)
        reply: asyncio.Future[BatchAnswer] = loop.create_future()
        self._pending[number] = reply
        message = _Message(shard, batch, body, milliseconds)
        confirmed = loop.create_task(self._publish(channel, message))
        confirmed.add_done_callback(lambda task: _fail_unconfirmed(reply, task))
        try:
            async with asyncio.timeout_at(deadline):
                worker_id, answers = await reply
        except TimeoutError:
            raise LedgerUnavailable("no answer in time") from None
        finally:
            del self._pending[number]
        if len(answers) != len(questions):
            raise LedgerUnavailable(f"{len(answers)} answers to {len(questions)} questions")
        return BatchAnswer(worker_id, merged(questions, answers[: len(operations)], answers[len(operations) :]))

    async def _send_parts(
        self, shard: int, questions: Sequence[Question], deadline: float, payload_bytes: int
    ) -> BatchAnswer:
        """Send a batch that is too large for one message as several; each part has answers of its own fate.

        Raises LedgerUnavailable if no part is answered.
        """
        size = max(1, len(questions) * BATCH_BYTES_MAX // (2 * payload_bytes))
        parts = [questions[start : start + size] for start in range(0, len(questions), size)]
        sent = [asyncio.ensure_future(self._send(shard, part, deadline)) for part in parts]
        await asyncio.gather(*sent, return_exceptions=True)
        worker_id, answers, fault = None, list[Answer](), LedgerUnavailable("no part was sent")
        for part, answered in zip(parts, sent, strict=True):
            if isinstance(error := answered.exception(), LedgerUnavailable):
                answers += [Outcome(OutcomeCode.UNAVAILABLE)] * len(part)
                fault = error
            else:
                worker_id = answered.result().worker_id
                answers += answered.result().answers
        if worker_id is None:
            raise fault
        return BatchAnswer(worker_id, answers)

    async def _publish(self, channel: Channel, message: _Message) -> None:
        """Publish with confirmation: what the broker confirms is posted, in time or late."""
        properties = Basic.Properties(
            delivery_mode=2,
            message_type=message.batch.version,
            message_id=str(message.batch.number),
            expiration=str(message.milliseconds),
        )
        unconfirmed = self._unconfirmed
        unconfirmed.sent()
        self._unanswered.sent()
        try:
            await channel.basic_publish(
                message.body,
                exchange=EXCHANGE,
                routing_key=shard_queue(message.shard),
                properties=properties,
                mandatory=True,
                wait=False,
            )
        finally:
            unconfirmed.heard()  # a refusal is heard, too
        if _log.is_enabled_for(logging.DEBUG):
            confirmed = [o.identity for o in message.batch.operations if isinstance(o, Operation)]
            _log.debug("confirmed by the broker", shard=message.shard, credits=confirmed)


def _silences() -> tuple[Watchdog, Watchdog]:
    return Watchdog("confirmations", UNCONFIRMED_SECONDS_MAX), Watchdog("replies", UNANSWERED_SECONDS_MAX)


def _fail_unconfirmed(reply: asyncio.Future[BatchAnswer], task: asyncio.Task[None]) -> None:
    """Fail a call whose message the broker refused, returned or lost, without waiting for the deadline."""
    error = None if task.cancelled() else task.exception()
    if error is None or reply.done():
        return
    reply.set_exception(as_unavailable(error))
