"""Processing a batch of deliveries: collect, post in one transaction, reply, settle.

Ack after commit and reply: a redelivery is harmless, a lost operation is not. A delivery that is past its deadline,
or meets a ledger that can't be reached, is rejected, whereupon the broker moves it to the late queue: what is owed
is posted from there, with nobody waiting. Only batches that a gateway has signed are posted or replied to.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

import structlog
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from shared.broker.bodies import is_cut
from shared.errors import LedgerUnavailable, PoisonMessage
from shared.log_limit import LimitedLog
from shared.message_keys import MAC_BYTES, MessageKeys, Purpose
from shared.outcome import Outcome, OutcomeCode
from shared.queries import QueryReply
from shared.runtime import drop_traceback
from shared.wire import (
    MESSAGE_BYTES_MAX,
    Batch,
    BatchReply,
    ReceivedOperation,
    ReceivedQuery,
    Replies,
    UnknownOperation,
    UnknownQuery,
    encode_replies,
    is_fit,
    owed,
    read_batch,
    refuse_size,
    refuse_stale,
)
from worker.ledger.service import LedgerService
from worker.messaging.dead_letter_publisher import DeadLetterPublisher
from worker.messaging.deliveries import Arrival, DeliveryBuffer
from worker.messaging.metrics import WorkerMetrics

LATE_REST_SECONDS: Final = 1.0
"""The time that late batches wait after the ledger could not be reached."""

POISON_MESSAGES_MAX: Final = 100
"""The bound on poison in one batch of deliveries: a flood of it must not keep signed batches from being posted."""

POISON_BYTES_MAX: Final = 4 << 20
"""The number of bytes of poison after which no more is collected: they are copied, and wait for confirmation."""

_UNAVAILABLE: Final = Outcome(OutcomeCode.UNAVAILABLE)
_UNPOSTABLE: Final = Outcome(OutcomeCode.UNPOSTABLE)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivered batch."""

    message: DeliveredMessage
    batch: Batch
    is_late: bool = False

    @property
    def tag(self) -> int:
        """The delivery tag, by which it is settled."""
        return self.message.delivery_tag or 0

    @property
    def operations(self) -> Sequence[ReceivedOperation]:
        """The operations to post. Of a late delivery only those that are owed: the others are given up by now."""
        return owed(self.batch.operations) if self.is_late else self.batch.operations

    @property
    def queries(self) -> Sequence[ReceivedQuery]:
        """The queries to reply to. Nobody waits for those of a late delivery."""
        return () if self.is_late else self.batch.queries


class Poison(NamedTuple):
    """A delivered message that must not be acted on, and why."""

    message: DeliveredMessage
    fault: PoisonMessage


@dataclass(slots=True)
class DeliveryBatch:
    """The deliveries that are processed together, and the poison that was found among them."""

    live: list[Delivery] = field(default_factory=list)
    late: list[Delivery] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    poison_bytes: int = 0

    def __len__(self) -> int:
        return sum(len(delivery.batch) for delivery in (*self.live, *self.late))

    def add_poison(self, message: DeliveredMessage, fault: PoisonMessage) -> None:
        """Take a message that is to be kept as a dead letter."""
        drop_traceback(fault)
        self.poison.append(Poison(message, fault))
        self.poison_bytes += len(message.body)

    @property
    def is_full_of_poison(self) -> bool:
        """Whether no more may be collected because of the poison."""
        return len(self.poison) >= POISON_MESSAGES_MAX or self.poison_bytes > POISON_BYTES_MAX

    @property
    def operations(self) -> list[ReceivedOperation]:
        """All operations to post, the live ones first."""
        return [o for delivery in (*self.live, *self.late) for o in delivery.operations]

    @property
    def queries(self) -> list[ReceivedQuery]:
        """All queries to reply to."""
        return [query for delivery in self.live for query in delivery.queries]


@dataclass(frozen=True, slots=True)
class BatchProcessor:
    """Processes the deliveries of one connection to the broker."""

    ledger: LedgerService
    metrics: WorkerMetrics
    deliveries: DeliveryBuffer
    channel: Channel
    """Live deliveries come on it and replies go on it: a reply is always sent before its ack."""

    dead_letters: DeadLetterPublisher
    keys: MessageKeys
    worker_id: str
    batch_operations_max: int
    deferred_log: LimitedLog = field(default_factory=lambda: LimitedLog("message left unread", "warning"))
    unavailable_log: LimitedLog = field(default_factory=lambda: LimitedLog("ledger unavailable", "warning"))

    def flush_logs(self) -> None:
        """Write the log lines that are held back."""
        self.dead_letters.log.flush()
        self.deferred_log.flush()
        self.unavailable_log.flush()

    async def process_next(self) -> None:
        """Process what has been delivered, up to the bound."""
        began = time.monotonic()
        collected = await self._collect()
        if collected.poison:
            await self._dead_letter_poison(collected.poison)
        operations, queries = collected.operations, collected.queries
        try:
            outcomes, replies = await self._answer(operations, queries)
        except LedgerUnavailable as error:
            self.unavailable_log.record("batch", reason=str(error))
            await self._release(collected)
            return
        except Exception:  # noqa: BLE001  (a defect of ours, but operations may be owed: they are posted later)
            _log.exception("ledger failed", questions=len(operations) + len(queries))
            await self._release(collected)
            return
        await self._reply(collected.live, iter(outcomes), iter(replies))
        await self._dead_letter_unpostable(operations, outcomes)
        await self._settle(collected)
        self._count(outcomes, len(queries), time.monotonic() - began)

    async def _answer(
        self, operations: Sequence[ReceivedOperation], queries: Sequence[ReceivedQuery]
    ) -> tuple[list[Outcome], list[QueryReply]]:
        """Post the operations and reply to the queries of the kinds that this version knows. Others can't be here."""
        known = [o for o in operations if not isinstance(o, UnknownOperation)]
        known_queries = [q for q in queries if not isinstance(q, UnknownQuery)]
        outcomes, replies = await self.ledger.answer(known, known_queries)
        if len(known) < len(operations):
            of_known = iter(outcomes)
            outcomes = [_UNPOSTABLE if isinstance(o, UnknownOperation) else next(of_known) for o in operations]
        if len(known_queries) < len(queries):
            of_queries = iter(replies)
            replies = [_UNAVAILABLE if isinstance(q, UnknownQuery) else next(of_queries) for q in queries]
        return outcomes, replies

    async def _collect(self) -> DeliveryBatch:
        """Take live deliveries up to the bound, and one late delivery: neither starves the other."""
        collected = DeliveryBatch()
        live = self.deliveries.live
        while live and len(collected) < self.batch_operations_max and not collected.is_full_of_poison:
            message, expires_at = self.deliveries.next_live()
            if is_cut(message) and is_fit(message.header.body_size or 0):
                await self._defer(message)
                continue
            try:
                delivery = self._decode(message, Purpose.BATCH)
            except PoisonMessage as fault:
                collected.add_poison(message, fault)
                continue
            if expires_at < time.monotonic():
                await self.channel.basic_reject(delivery.tag, requeue=False, wait=False)
            else:
                collected.live.append(delivery)
        if self.deliveries.late and time.monotonic() >= self.deliveries.late_rests_until:
            message = self.deliveries.late.popleft().message
            try:
                collected.late.append(self._decode(message, Purpose.BATCH, Purpose.DEAD, is_late=True))
                self.metrics.late.inc()
            except PoisonMessage as fault:
                collected.add_poison(message, fault)
        return collected

    def _decode(self, message: DeliveredMessage, *purposes: Purpose, is_late: bool = False) -> Delivery:
        """Read a delivery. Raises PoisonMessage."""
        refuse_size(message.header.body_size or 0)
        batch = read_batch(self.keys, message.body, message.header.properties.message_type, *purposes)
        refuse_stale(batch)
        return Delivery(message, batch, is_late)

    async def _defer(self, message: DeliveredMessage) -> None:
        """Leave a message to the late queue whose body was not kept, because too many bytes were waiting."""
        self.metrics.deferred.inc()
        self.deferred_log.record("bytes", queue=message.routing_key)
        await self.channel.basic_reject(message.delivery_tag or 0, requeue=False, wait=False)

    async def _dead_letter_poison(self, poison: Iterable[Poison]) -> None:
        """Keep poison as dead letters: it is neither lost nor delivered for ever. Waits for all at once."""
        await asyncio.gather(*(self.dead_letters.publish_poison(*each) for each in poison))

    async def _dead_letter_unpostable(
        self, operations: Sequence[ReceivedOperation], outcomes: Sequence[Outcome]
    ) -> None:
        """Keep each operation that the ledger can't post as a dead letter. Waits for all confirmations at once."""
        unpostable = [
            o for o, outcome in zip(operations, outcomes, strict=True) if outcome.code is OutcomeCode.UNPOSTABLE
        ]
        await asyncio.gather(*map(self.dead_letters.publish_unpostable, unpostable))

    async def _reply(
        self, deliveries: Iterable[Delivery], outcomes: Iterator[Outcome], replies: Iterator[QueryReply]
    ) -> None:
        """Send one message to each gateway for each version, or several if it would be too large."""
        batches: dict[tuple[str, str], list[BatchReply]] = defaultdict(list)
        for delivery in deliveries:
            batch = delivery.batch
            reply = BatchReply(
                batch.number,
                list(islice(outcomes, len(batch.operations))),
                list(islice(replies, len(batch.queries))),
                batch.positions,
            )
            batches[batch.reply_to, batch.version].append(reply)
        for (reply_to, version), batch_replies in batches.items():
            await self._send_replies(Replies(reply_to, self.worker_id, batch_replies, version))

    async def _send_replies(self, replies: Replies) -> None:
        payload, batches = encode_replies(replies), replies.batches
        if MAC_BYTES + len(payload) > MESSAGE_BYTES_MAX and len(batches) > 1:
            half = len(batches) // 2
            for part in (batches[:half], batches[half:]):
                await self._send_replies(Replies(replies.reply_to, self.worker_id, part, replies.version))
            return
        body = self.keys.sign(Purpose.REPLY, payload, replies.version)
        properties = Basic.Properties(message_type=replies.version)
        await self.channel.basic_publish(body, routing_key=replies.reply_to, properties=properties, wait=False)

    async def _settle(self, collected: DeliveryBatch) -> None:
        if collected.live:
            await self.channel.basic_ack(collected.live[-1].tag, multiple=True, wait=False)
        for delivery in collected.late:
            await delivery.message.channel.basic_ack(delivery.tag, wait=False)

    async def _release(self, collected: DeliveryBatch) -> None:
        """Reply UNAVAILABLE at once, and leave the operations, which may be posted or not, to the late queue."""
        outcomes, replies = len(collected.operations), len(collected.queries)
        await self._reply(collected.live, iter([_UNAVAILABLE] * outcomes), iter([_UNAVAILABLE] * replies))
        for delivery in collected.live:
            await self.channel.basic_reject(delivery.tag, requeue=False, wait=False)
        # Behind the others: one that no ledger can post must not keep them from being posted.
        self.deliveries.late.extend(Arrival(delivery.message) for delivery in collected.late)
        self.deliveries.late_rests_until = time.monotonic() + LATE_REST_SECONDS

    def _count(self, outcomes: Sequence[Outcome], queries: int, seconds: float) -> None:
        for code, number in Counter(outcome.code for outcome in outcomes).items():
            self.metrics.credits.labels(code.value).inc(number)
        if outcomes or queries:
            self.metrics.batch_operations.observe(len(outcomes) + queries)
            self.metrics.batch_seconds.observe(seconds)
