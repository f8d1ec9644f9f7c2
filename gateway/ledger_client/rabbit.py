"""The ledger over RabbitMQ: a batch goes to a shard's queue, its reply comes to this connection's own queue.

The broker names the reply queue anew for every connection, so that a reply can never be taken for another's, and
nothing is left of a lost connection. When a connection is lost, every call under way fails at once: whether its
credits were posted is unknown, and the provider must send them again.

That a message arrived on the reply queue proves nothing. A reply counts only if it is signed for this queue and
answers a batch that waits. The client creates nothing else on the broker; the exchange and queues are the workers'.
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
from gateway.ledger_client.concurrency import ConcurrencyLimit
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

EXCHANGE_CHECK_SECONDS: Final = 0.5
"""How often a gateway checks whether a worker has declared the exchange."""

_NO_BROKER: Final = "no connection to the broker"
_NO_EXCHANGE: Final = f"the broker has no exchange {EXCHANGE!r}: no worker has served there yet"

_log = structlog.get_logger()


class _Message(NamedTuple):
    """A batch that is being published."""

    shard: int
    batch: Batch
    body: bytes
    milliseconds: int


class RabbitLedgerClient(LedgerClient):
    """Calls the ledger workers over a connection that is kept open, and reopened when it is lost."""

    def __init__(self, settings: BrokerSettings, keys: MessageKeys, limit: ConcurrencyLimit) -> None:
        """Take `[broker]`, its keys, and the limit that calls are counted in."""
        super().__init__(limit)
        self._settings: Final = settings
        self._keys: Final = keys
        self._dispatcher: Final = BatchDispatcher(self._send, 1, limit)
        self._shard_search: Final = ShardSearch(self._dispatcher, self._send, settings.shards)
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
        self._unavailable_reason = _NO_BROKER
        self._reply_queue = ""
        self._unconfirmed, self._unanswered = _watchdogs()
        self._connecting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start connecting. Raises SettingsError when the broker refuses us."""
        await require_access(self._settings)
        self._connecting = asyncio.create_task(keep_connected(self._settings, self._serve, self._stop))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect, and fail the calls under way."""
        self._stop.set()
        if self._connecting is not None:
            await self._connecting
        await self._dispatcher.close()
        self._dropped_log.flush()

    @property
    def counters(self) -> Sequence[Collector]:
        """The numbers of dropped replies and of shards in use."""
        return self._dropped, self._shard_search.gauge

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        """Return the ledger's replies by `deadline` on the loop's clock."""
        if self._channel is None:
            return [LedgerUnavailable(self._unavailable_reason)] * len(questions)
        return await self._dispatcher.call_all(questions, deadline)

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the reply to a call that overtakes all that wait and is not counted in the limit."""
        if self._channel is None:
            raise LedgerUnavailable(self._unavailable_reason)
        return await self._dispatcher.call_first(question, deadline)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Use one connection until it is lost, the client stops, or, if there are other nodes, a watchdog expires."""
        if not await self._wait_for_exchange(connection):
            return
        channel = await connection.channel(on_return_raises=True)
        replies = await channel.declare_queue(exclusive=True)
        raw = await raw_channel(channel)
        gather_bodies_if(raw, is_fit)
        await raw.basic_consume(replies.name, self._on_reply, no_ack=True)
        self._unconfirmed, self._unanswered = _watchdogs()
        self._reply_queue, self._channel = replies.name, raw
        _log.info("connected to the broker", shards=self._dispatcher.shards)
        ends = [
            asyncio.ensure_future(self._shard_search.run()),
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

    async def _wait_for_exchange(self, connection: AbstractConnection) -> bool:
        """Return True when a worker has declared the exchange, or False when the client stops before."""
        try:
            while not self._stop.is_set():
                try:
                    async with connection.channel() as channel:
                        await channel.get_exchange(EXCHANGE)
                except ChannelNotFoundEntity:
                    if self._unavailable_reason != _NO_EXCHANGE:
                        _log.warning("no workers yet", reason=_NO_EXCHANGE)
                    self._unavailable_reason = _NO_EXCHANGE
                    await asyncio.sleep(EXCHANGE_CHECK_SECONDS)
                else:
                    return True
            return False
        finally:
            self._unavailable_reason = _NO_BROKER

    def _fail_pending(self, reason: str) -> None:
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(LedgerUnavailable(reason))

    async def _on_reply(self, message: DeliveredMessage) -> None:
        message_type = message.header.properties.message_type
        try:
            refuse_size(message.header.body_size or 0)
            replies = read_replies(self._keys, message.body, message_type, self._reply_queue)
        except PoisonMessage as error:
            self._drop(error.kind, str(error))
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
            raise LedgerUnavailable(self._unavailable_reason)
        number, milliseconds = randbits(BATCH_NUMBER_BITS), max(1, int((deadline - loop.time()) * 1_000))
        operations, queries = split(questions)
        batch = Batch(number, unix_ms() + milliseconds, operations, queries, self._reply_queue, version_for(operations))
        payload = encode_batch(batch)
        if len(payload) > BATCH_BYTES_MAX:
            if len(questions) > 1:
                return await self._send_parts(shard, questions, deadline, len(payload))
            if not is_fit(MAC_BYTES + len(payload)):
                raise LedgerUnavailable(f"a question of {len(payload)} bytes")
        body = self._keys.sign(Purpose.BATCH, payload, batch.version)
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
        """Send a batch that is too large for one message in parts, and return the replies in order.

        The credits of a part that fails are unavailable. Raises LedgerUnavailable if no part is answered.
        """
        size = max(1, len(questions) * BATCH_BYTES_MAX // (2 * payload_bytes))
        parts = [questions[start : start + size] for start in range(0, len(questions), size)]
        sent = [asyncio.ensure_future(self._send(shard, part, deadline)) for part in parts]
        await asyncio.gather(*sent, return_exceptions=True)
        worker_id, answers, fault = None, list[Answer](), LedgerUnavailable("no part was sent")
        for part, reply in zip(parts, sent, strict=True):
            if isinstance(error := reply.exception(), LedgerUnavailable):
                answers += [Outcome(OutcomeCode.UNAVAILABLE)] * len(part)
                fault = error
            else:
                worker_id = reply.result().worker_id
                answers += reply.result().answers
        if worker_id is None:
            raise fault
        return BatchAnswer(worker_id, answers)

    async def _publish(self, channel: Channel, message: _Message) -> None:
        """Publish a batch and wait for its confirmation; credits of a confirmed batch are posted, in time or late."""
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
            unconfirmed.heard()  # also a refusal shows that the broker is alive
        if _log.is_enabled_for(logging.DEBUG):
            confirmed = [o.identity for o in message.batch.operations if isinstance(o, Operation)]
            _log.debug("confirmed by the broker", shard=message.shard, credits=confirmed)


def _watchdogs() -> tuple[Watchdog, Watchdog]:
    return Watchdog("confirmations", UNCONFIRMED_SECONDS_MAX), Watchdog("replies", UNANSWERED_SECONDS_MAX)


def _fail_unconfirmed(reply: asyncio.Future[BatchAnswer], task: asyncio.Task[None]) -> None:
    """Fail a call at once, not at its deadline, when the broker has refused, returned or lost its message."""
    error = None if task.cancelled() else task.exception()
    if error is None or reply.done():
        return
    reply.set_exception(as_unavailable(error))
