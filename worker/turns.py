"""One turn of a worker: take deliveries, answer them in one transaction, reply, settle.

Ack after commit and reply: a redelivery is harmless, a lost credit is not. What is past its deadline, or
meets a ledger that can't be reached, is rejected, whereupon the broker moves it to the late queue: it will
be posted with nobody waiting.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import structlog
from aiormq import Channel
from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from shared.credit import Credit
from shared.errors import LedgerUnavailable, PoisonMessage
from shared.outcome import Outcome, Result
from shared.topology import DEAD_QUEUE
from shared.wire import MESSAGE_TYPE, Answer, Batch, BatchReply, Question, decode_batch, encode
from worker.bookkeeper import Bookkeeper
from worker.inbox import Arrival, Inbox
from worker.metrics import WorkerMetrics

LATE_REST_SECONDS: Final = 1.0
"""How long late credits wait after the ledger could not be reached."""

_UNAVAILABLE: Final = Outcome(Result.UNAVAILABLE)
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

    @property
    def reply_to(self) -> str:
        """The reply queue of the gateway that waits."""
        return self.message.header.properties.reply_to or ""


@dataclass(slots=True)
class Turn:
    """What is answered together."""

    live: list[Delivery] = field(default_factory=list)
    late: list[Delivery] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(delivery.batch.questions) for delivery in (*self.live, *self.late))

    @property
    def questions(self) -> list[Question]:
        """Everything to be answered. Nobody waits for what a late lookup would find."""
        waiting = [q for delivery in self.live for q in delivery.batch.questions]
        return waiting + [q for delivery in self.late for q in _credits(delivery)]


def _credits(delivery: Delivery) -> list[Credit]:
    return [q for q in delivery.batch.questions if isinstance(q, Credit)]


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns on one connection to the broker."""

    bookkeeper: Bookkeeper
    metrics: WorkerMetrics
    inbox: Inbox
    channel: Channel
    """Live deliveries come on it and replies go on it: a reply is always sent before its ack."""

    confirming: Channel
    """Publishes what must not be lost."""

    worker_id: str
    batch_credits_max: int

    async def work(self) -> None:
        """Do one turn."""
        began = time.monotonic()
        taken = await self._take()
        questions = taken.questions
        try:
            answers = await self.bookkeeper.answer(questions)
        except LedgerUnavailable as error:
            _log.warning("ledger unavailable", reason=str(error), questions=len(questions))
            await self._give_back(taken)
            return
        await self._bury(questions, answers)
        await self._reply(taken.live, iter(answers))
        await self._settle(taken)
        self._count(questions, answers, time.monotonic() - began)

    async def _take(self) -> Turn:
        """Take live deliveries up to the bound, and one late delivery: neither starves the other."""
        taken = Turn()
        while self.inbox.live and len(taken) < self.batch_credits_max:
            message, waited_for_until = self.inbox.live.popleft()
            delivery = await self._open(message)
            if delivery is None:
                continue
            if waited_for_until < time.monotonic():
                await self.channel.basic_reject(delivery.tag, requeue=False, wait=False)
            else:
                taken.live.append(delivery)
        if self.inbox.late and time.monotonic() >= self.inbox.late_rests_until:
            delivery = await self._open(self.inbox.late.popleft().message)
            if delivery is not None:
                self.metrics.late.inc()
                taken.late.append(delivery)
        return taken

    async def _open(self, message: DeliveredMessage) -> Delivery | None:
        """Decode a delivery; put poison aside, so that it is neither lost nor delivered for ever."""
        try:
            return Delivery(message, decode_batch(message.body, message.header.properties.message_type))
        except PoisonMessage as poison:
            _log.error("poison message", queue=message.routing_key, reason=str(poison))
            await self._put_aside(message.body, str(poison), message.header.properties.message_type)
            self.metrics.dead.labels("undecodable").inc()
            await message.channel.basic_ack(message.delivery_tag or 0, wait=False)
            return None

    async def _bury(self, questions: list[Question], answers: list[Answer]) -> None:
        """Keep each credit that the ledger can't take for a person; the provider is told to ask again."""
        for question, answer in zip(questions, answers, strict=True):
            if (
                isinstance(answer, Outcome)
                and answer.result is Result.UNPOSTABLE
                and isinstance(question, Credit)
            ):
                await self._put_aside(encode(Batch(0, 0, [question])), "unpostable", MESSAGE_TYPE)
                self.metrics.dead.labels("unpostable").inc()

    async def _put_aside(self, body: bytes, reason: str, message_type: str | None) -> None:
        properties = Basic.Properties(
            delivery_mode=2,
            message_type=message_type,
            headers={"reason": reason[:1_000]},
            timestamp=datetime.now(UTC),
        )
        await self.confirming.basic_publish(body, routing_key=DEAD_QUEUE, properties=properties)

    async def _reply(self, deliveries: Iterable[Delivery], answers: Iterator[Answer]) -> None:
        """Send one message to each gateway."""
        replies: dict[str, list[BatchReply]] = defaultdict(list)
        for delivery in deliveries:
            batch = delivery.batch
            replies[delivery.reply_to].append(
                BatchReply(batch.number, list(islice(answers, len(batch.questions))))
            )
        for reply_to, batch_replies in replies.items():
            properties = Basic.Properties(message_type=MESSAGE_TYPE, app_id=self.worker_id)
            body = encode(batch_replies)
            await self.channel.basic_publish(body, routing_key=reply_to, properties=properties, wait=False)

    async def _settle(self, taken: Turn) -> None:
        if taken.live:
            await self.channel.basic_ack(taken.live[-1].tag, multiple=True, wait=False)
        for delivery in taken.late:
            await delivery.message.channel.basic_ack(delivery.tag, wait=False)

    async def _give_back(self, taken: Turn) -> None:
        """Tell the gateways at once, and leave the credits, which may be posted or not, to the late queue."""
        await self._reply(taken.live, iter([_UNAVAILABLE] * len(taken.questions)))
        for delivery in taken.live:
            await self.channel.basic_reject(delivery.tag, requeue=False, wait=False)
        self.inbox.late.extendleft(Arrival(delivery.message) for delivery in taken.late)
        self.inbox.late_rests_until = time.monotonic() + LATE_REST_SECONDS

    def _count(self, questions: list[Question], answers: list[Answer], seconds: float) -> None:
        results = Counter(
            answer.result
            for question, answer in zip(questions, answers, strict=True)
            if isinstance(question, Credit) and isinstance(answer, Outcome)
        )
        for result, number in results.items():
            self.metrics.credits.labels(result.value).inc(number)
        if answers:
            self.metrics.batch_credits.observe(len(answers))
            self.metrics.batch_seconds.observe(seconds)
