"""One turn of a worker: take deliveries, answer them in one transaction, reply, settle.

Ack after commit and reply: a redelivery is harmless, a lost credit is not. What is past its deadline, or
meets a ledger that can't be reached, is rejected, whereupon the broker moves it to the late queue: it will
be posted with nobody waiting. Only what a gateway has signed is posted, or answered at all.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
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
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from shared.runtime import drop_traceback
from shared.wire import (
    MESSAGE_BYTES_MAX,
    MESSAGE_TYPE,
    Answer,
    Batch,
    BatchReply,
    Question,
    Replies,
    encode,
    is_fit,
    read_batch,
    refuse_size,
    refuse_stale,
)
from worker.ledger.service import LedgerService
from worker.messaging.dead_letter_publisher import DeadLetterPublisher
from worker.messaging.deliveries import Arrival, DeliveryBuffer
from worker.messaging.metrics import WorkerMetrics

LATE_REST_SECONDS: Final = 1.0
"""How long late credits wait after the ledger could not be reached."""

POISON_MESSAGES_MAX: Final = 100
"""In one turn: a flood of them must not keep what was signed from being posted."""

POISON_BYTES_MAX: Final = 4 << 20
"""In one turn, as soon as there are more: so much is copied, and waits for the broker's confirmation."""

_UNAVAILABLE: Final = Outcome(OutcomeCode.UNAVAILABLE)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivered batch."""

    message: DeliveredMessage
    batch: Batch

    @property
    def tag(self) -> int:
        """What the delivery is settled by."""
        return self.message.delivery_tag or 0


class Poison(NamedTuple):
    """A delivered message that is not to be acted on, and why."""

    message: DeliveredMessage
    fault: PoisonMessage


@dataclass(slots=True)
class DeliveryBatch:
    """What is answered together, and what is put aside beside it."""

    live: list[Delivery] = field(default_factory=list)
    late: list[Delivery] = field(default_factory=list)
    poison: list[Poison] = field(default_factory=list)
    poison_bytes: int = 0

    def __len__(self) -> int:
        return sum(len(delivery.batch.questions) for delivery in (*self.live, *self.late))

    def add_poison(self, message: DeliveredMessage, fault: PoisonMessage) -> None:
        """Note what is to be put aside."""
        drop_traceback(fault)
        self.poison.append(Poison(message, fault))
        self.poison_bytes += len(message.body)

    @property
    def is_full_of_poison(self) -> bool:
        """Whether no more is taken for what was put aside."""
        return len(self.poison) >= POISON_MESSAGES_MAX or self.poison_bytes > POISON_BYTES_MAX

    @property
    def questions(self) -> list[Question]:
        """Everything to be answered. Nobody waits for what a late lookup would find."""
        waiting = [q for delivery in self.live for q in delivery.batch.questions]
        return waiting + [q for delivery in self.late for q in _credits(delivery)]


def _credits(delivery: Delivery) -> list[Credit]:
    return [q for q in delivery.batch.questions if isinstance(q, Credit)]


@dataclass(frozen=True, slots=True)
class BatchProcessor:
    """The turns on one connection to the broker."""

    ledger: LedgerService
    metrics: WorkerMetrics
    deliveries: DeliveryBuffer
    channel: Channel
    """Live deliveries come on it and replies go on it: a reply is always sent before its ack."""

    dead_letters: DeadLetterPublisher
    keys: MessageKeys
    worker_id: str
    batch_credits_max: int
    deferred_log: LimitedLog = field(default_factory=lambda: LimitedLog("message left unread", "warning"))
    unavailable_log: LimitedLog = field(default_factory=lambda: LimitedLog("ledger unavailable", "warning"))

    def flush_logs(self) -> None:
        """Log what has not been."""
        self.dead_letters.log.flush()
        self.deferred_log.flush()
        self.unavailable_log.flush()

    async def process_next(self) -> None:
        """Do one turn."""
        began = time.monotonic()
        taken = await self._collect()
        if taken.poison:
            await self._dead_letter_poison(taken.poison)
        questions = taken.questions
        try:
            answers = await self.ledger.answer(questions)
        except LedgerUnavailable as error:
            self.unavailable_log.record("batch", reason=str(error))
            await self._release(taken)
            return
        except Exception:  # noqa: BLE001  (a defect, but the credits are owed: they are tried again, later)
            _log.exception("ledger failed", questions=len(questions))
            await self._release(taken)
            return
        await self._dead_letter_unpostable(questions, answers)
        await self._reply(taken.live, iter(answers))
        await self._settle(taken)
        self._count(questions, answers, time.monotonic() - began)

    async def _collect(self) -> DeliveryBatch:
        """Take live deliveries up to the bound, and one late delivery: neither starves the other."""
        taken = DeliveryBatch()
        live = self.deliveries.live
        while live and len(taken) < self.batch_credits_max and not taken.is_full_of_poison:
            message, waited_for_until = self.deliveries.next_live()
            if is_cut(message) and is_fit(message.header.body_size or 0):
                await self._defer(message)
                continue
            try:
                delivery = self._decode(message, Purpose.BATCH)
            except PoisonMessage as fault:
                taken.add_poison(message, fault)
                continue
            if waited_for_until < time.monotonic():
                await self.channel.basic_reject(delivery.tag, requeue=False, wait=False)
            else:
                taken.live.append(delivery)
        if self.deliveries.late and time.monotonic() >= self.deliveries.late_rests_until:
            message = self.deliveries.late.popleft().message
            try:
                taken.late.append(self._decode(message, Purpose.BATCH, Purpose.DEAD))
                self.metrics.late.inc()
            except PoisonMessage as fault:
                taken.add_poison(message, fault)
        return taken

    def _decode(self, message: DeliveredMessage, *purposes: Purpose) -> Delivery:
        """Read a delivery. Raises PoisonMessage."""
        refuse_size(message.header.body_size or 0)
        batch = read_batch(self.keys, message.body, message.header.properties.message_type, *purposes)
        refuse_stale(batch)
        return Delivery(message, batch)

    async def _defer(self, message: DeliveredMessage) -> None:
        """Leave a message, of which too many bytes waited to gather it, to the late queue."""
        self.metrics.deferred.inc()
        self.deferred_log.record("bytes", queue=message.routing_key)
        await self.channel.basic_reject(message.delivery_tag or 0, requeue=False, wait=False)

    async def _dead_letter_poison(self, poison: Iterable[Poison]) -> None:
        """Keep poison for a person: it is neither lost nor delivered for ever. Waits for all at once."""
        await asyncio.gather(*(self.dead_letters.publish_poison(*each) for each in poison))

    async def _dead_letter_unpostable(self, questions: list[Question], answers: list[Answer]) -> None:
        """Keep each credit that the ledger can't take for a person; the provider is told to ask again."""
        for question, answer in zip(questions, answers, strict=True):
            if isinstance(answer, Outcome) and answer.code is OutcomeCode.UNPOSTABLE and isinstance(question, Credit):
                await self.dead_letters.publish_unpostable(question)

    async def _reply(self, deliveries: Iterable[Delivery], answers: Iterator[Answer]) -> None:
        """Send one message to each gateway, or several if it would be too large."""
        replies: dict[str, list[BatchReply]] = defaultdict(list)
        for delivery in deliveries:
            batch = delivery.batch
            replies[batch.reply_to].append(BatchReply(batch.number, list(islice(answers, len(batch.questions)))))
        for reply_to, batch_replies in replies.items():
            await self._send_replies(reply_to, batch_replies)

    async def _send_replies(self, reply_to: str, batch_replies: list[BatchReply]) -> None:
        payload = encode(Replies(reply_to, self.worker_id, batch_replies))
        if MAC_BYTES + len(payload) > MESSAGE_BYTES_MAX and len(batch_replies) > 1:
            half = len(batch_replies) // 2
            await self._send_replies(reply_to, batch_replies[:half])
            await self._send_replies(reply_to, batch_replies[half:])
            return
        body = self.keys.sign(Purpose.REPLY, payload)
        properties = Basic.Properties(message_type=MESSAGE_TYPE)
        await self.channel.basic_publish(body, routing_key=reply_to, properties=properties, wait=False)

    async def _settle(self, taken: DeliveryBatch) -> None:
        if taken.live:
            await self.channel.basic_ack(taken.live[-1].tag, multiple=True, wait=False)
        for delivery in taken.late:
            await delivery.message.channel.basic_ack(delivery.tag, wait=False)

    async def _release(self, taken: DeliveryBatch) -> None:
        """Tell the gateways at once, and leave the credits, which may be posted or not, to the late queue."""
        await self._reply(taken.live, iter([_UNAVAILABLE] * len(taken.questions)))
        for delivery in taken.live:
            await self.channel.basic_reject(delivery.tag, requeue=False, wait=False)
        # Behind the others: what no ledger can take must not keep them from being paid.
        self.deliveries.late.extend(Arrival(delivery.message) for delivery in taken.late)
        self.deliveries.late_rests_until = time.monotonic() + LATE_REST_SECONDS

    def _count(self, questions: list[Question], answers: list[Answer], seconds: float) -> None:
        results = Counter(
            answer.code
            for question, answer in zip(questions, answers, strict=True)
            if isinstance(question, Credit) and isinstance(answer, Outcome)
        )
        for result, number in results.items():
            self.metrics.credits.labels(result.value).inc(number)
        if answers:
            self.metrics.batch_credits.observe(len(answers))
            self.metrics.batch_seconds.observe(seconds)
