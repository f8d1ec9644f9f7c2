"""The ledger over RabbitMQ: a batch out to a shard's queue, its reply back on this connection's own queue.

The reply queue is the broker's to name and new for every connection, so that a reply can never be taken for
another's, and nothing is left of a connection that is lost. When it is lost every call that is under way
fails at once: whether its credits were posted is unknown, and the provider must ask again.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import Final, Self

import structlog
from aio_pika.abc import AbstractConnection
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError
from pamqp.commands import Basic

from gateway.ledger_client.contract import LedgerClient
from gateway.ledger_client.lanes import Answered, Lanes
from gateway.ledger_client.silence import UNANSWERED_SECONDS_MAX, UNCONFIRMED_SECONDS_MAX, Silence
from shared.amqp import BROKER_FAULTS, keep_connected, lost, wire_channel
from shared.broker_access import require_access
from shared.credit import Credit
from shared.errors import LedgerUnavailable, PoisonMessage
from shared.settings import BrokerSettings
from shared.topology import declare_queues, shard_queue
from shared.wire import MESSAGE_TYPE, Answer, Batch, Question, decode_replies, encode

_log = structlog.get_logger()


class RabbitLedgerClient(LedgerClient):
    """Calls the ledger workers."""

    def __init__(self, settings: BrokerSettings, in_flight_max: int) -> None:
        """Take `[broker]` and how many questions may wait at once."""
        self._settings: Final = settings
        self._lanes: Final = Lanes(self._send, settings.shards, in_flight_max)
        self._stop: Final = asyncio.Event()
        self._pending: Final[dict[int, asyncio.Future[Answered]]] = {}
        self._numbers: Final = count(1)
        self._channel: Channel | None = None
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

    def is_overloaded(self, more: int = 0) -> bool:
        """Tell whether who asks now would only make all wait longer."""
        return self._lanes.is_overloaded(more)

    @property
    def in_flight(self) -> int:
        """How many questions wait for their answer."""
        return self._lanes.in_flight

    async def ask_all(
        self, questions: Sequence[Question], deadline: float
    ) -> Sequence[Answer | LedgerUnavailable]:
        """Return the ledger's answers by `deadline` on the loop's clock."""
        if self._channel is None:
            return [LedgerUnavailable("no connection to the broker")] * len(questions)
        return await self._lanes.ask_all(questions, deadline)

    async def _serve(self, connection: AbstractConnection) -> None:
        """Use one connection until it is lost, silent while there are other nodes, or we stop."""
        channel = await connection.channel(publisher_confirms=True)
        await declare_queues(channel, self._settings.shards)
        replies = await channel.declare_queue(exclusive=True)
        wire = await wire_channel(channel)
        await wire.basic_consume(replies.name, self._on_reply, no_ack=True)
        self._unconfirmed, self._unanswered = _silences()
        self._reply_queue, self._channel = replies.name, wire
        _log.info("connected to the broker", shards=self._settings.shards)
        ends = [
            asyncio.ensure_future(lost(connection, channel)),
            asyncio.ensure_future(self._stop.wait()),
        ]
        if len(self._settings.urls) > 1:
            ends.append(asyncio.ensure_future(self._unconfirmed.has_lasted()))
            ends.append(asyncio.ensure_future(self._unanswered.has_lasted()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._channel = None
            for end in ends:
                end.cancel()
            self._fail_pending("the connection to the broker was lost")

    def _fail_pending(self, reason: str) -> None:
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(LedgerUnavailable(reason))

    async def _on_reply(self, message: DeliveredMessage) -> None:
        try:
            replies = decode_replies(message.body)
        except PoisonMessage as poison:
            _log.error("undecodable reply", reason=str(poison))
            return
        self._unanswered.end()
        worker_id = message.header.properties.app_id or ""
        for batch in replies:
            reply = self._pending.get(batch.number)
            if reply is not None and not reply.done():
                reply.set_result(Answered(worker_id, batch.answers))

    async def _send(self, shard: int, questions: Sequence[Question], deadline: float) -> Answered:
        """Publish a batch and return its answers by `deadline`. Raises LedgerUnavailable."""
        channel, loop = self._channel, asyncio.get_running_loop()
        if channel is None:
            raise LedgerUnavailable("no connection to the broker")
        number = next(self._numbers)
        reply: asyncio.Future[Answered] = loop.create_future()
        self._pending[number] = reply
        confirmed = loop.create_task(self._publish(channel, shard, number, questions, deadline - loop.time()))
        confirmed.add_done_callback(lambda task: _fail_unconfirmed(reply, task))
        try:
            async with asyncio.timeout_at(deadline):
                return await reply
        except TimeoutError:
            raise LedgerUnavailable("no answer in time") from None
        finally:
            del self._pending[number]

    async def _publish(
        self, channel: Channel, shard: int, number: int, questions: Sequence[Question], seconds: float
    ) -> None:
        """Publish with confirmation: what the broker confirms is posted, in time or late."""
        milliseconds = max(1, int(seconds * 1_000))
        batch = Batch(number, int(time.time() * 1_000) + milliseconds, list(questions))
        properties = Basic.Properties(
            delivery_mode=2,
            message_type=MESSAGE_TYPE,
            message_id=str(number),
            reply_to=self._reply_queue,
            expiration=str(milliseconds),
        )
        unconfirmed = self._unconfirmed
        unconfirmed.begin()
        self._unanswered.begin()
        where = shard_queue(shard)
        try:
            await channel.basic_publish(
                encode(batch), routing_key=where, properties=properties, mandatory=True, wait=False
            )
        finally:
            unconfirmed.end()  # a refusal is heard, too
        if _log.is_enabled_for(logging.DEBUG):
            confirmed = [question.identity for question in questions if isinstance(question, Credit)]
            _log.debug("confirmed by the broker", shard=shard, credits=confirmed)


def _silences() -> tuple[Silence, Silence]:
    return Silence("confirmations", UNCONFIRMED_SECONDS_MAX), Silence("replies", UNANSWERED_SECONDS_MAX)


def _fail_unconfirmed(reply: asyncio.Future[Answered], task: asyncio.Task[None]) -> None:
    """Fail a call whose message the broker refused, returned or lost, without waiting for the deadline."""
    error = None if task.cancelled() else task.exception()
    if error is None or reply.done():
        return
    known = isinstance(error, (DeliveryError, *BROKER_FAULTS))
    reason = "the broker refused the message" if known else f"publishing failed: {type(error).__name__}"
    reply.set_exception(LedgerUnavailable(reason))
