"""RabbitMQ as a few lists in memory: it delivers again what a worker that died has not settled."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from gateway.ledger_client.questions import split
from shared.broker.topology import DEAD_QUEUE
from shared.message_keys import Purpose
from shared.wire import V2, Batch, BatchReply, Question, encode_batch, read_batch, read_replies, unix_ms
from tests.support.fault_points import FaultPoint
from tests.support.system import KEYS
from worker.messaging.deliveries import Arrival

UNTIL_THE_END: Final = 10**15
"""A deadline, in Unix milliseconds, that no test lives to see."""


@dataclass(slots=True)
class Queues:
    """A shard's queue, the late one and the dead one, and what came back to the gateways."""

    live: deque[Batch] = field(default_factory=deque)
    late: deque[Batch] = field(default_factory=deque)
    dead: list[bytes] = field(default_factory=list)
    replies: list[tuple[str, BatchReply]] = field(default_factory=list)


class UnluckyChannel:
    """What a worker does on a channel, done to the queues."""

    def __init__(self, queues: Queues, source: deque[Batch], luck: FaultPoint) -> None:
        self._queues, self._source, self._luck = queues, source, luck
        self._tags = count(1)
        self.unsettled: dict[int, Batch] = {}

    def deliver(self, inbox: deque[Arrival]) -> None:
        """Deliver all that waits in the channel's queue."""
        while self._source:
            batch, tag = self._source.popleft(), next(self._tags)
            self.unsettled[tag] = batch
            properties = Basic.Properties(message_type=V2)
            header = ContentHeader(properties=properties)
            deliver = Basic.Deliver(delivery_tag=tag, routing_key="shard")
            channel: Any = self
            body = KEYS.sign(Purpose.BATCH, encode_batch(batch))
            message = DeliveredMessage(deliver, header, body, channel)
            inbox.append(Arrival(message, 0.0 if is_expired(batch) else UNTIL_THE_END))

    def return_unsettled(self) -> None:
        """Put back, in its order, what was delivered and not settled, as a broker does for the dead."""
        self._source.extendleft(reversed(self.unsettled.values()))
        self.unsettled.clear()

    async def basic_ack(self, delivery_tag: int, *, multiple: bool = False, wait: bool) -> None:
        del wait
        for tag in [tag for tag in self.unsettled if tag == delivery_tag or (multiple and tag < delivery_tag)]:
            del self.unsettled[tag]
        self._luck.after("ack")

    async def basic_reject(self, delivery_tag: int, *, requeue: bool, wait: bool) -> None:
        del wait
        assert not requeue
        self._queues.late.append(self.unsettled.pop(delivery_tag))
        self._luck.after("reject")

    async def basic_publish(
        self,
        body: bytes,
        *,
        routing_key: str,
        properties: Basic.Properties,
        mandatory: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  (aiormq's own)
        wait: bool = True,
    ) -> None:
        del wait, timeout
        assert properties.message_type == V2
        if routing_key == DEAD_QUEUE:
            assert mandatory
            self._queues.dead.append(body)
            return
        replies = read_replies(KEYS, body, V2, routing_key)
        self._queues.replies += ((routing_key, reply) for reply in replies.batches)
        self._luck.after("reply")


def batch_of(number: int, questions: Sequence[Question], *, expired: bool = False) -> Batch:
    """Return a batch as a gateway sends it."""
    operations, queries = split(questions)
    deadline = unix_ms() if expired else UNTIL_THE_END
    return Batch(number, deadline, operations, queries, f"gateway-{number % 2}")


def is_expired(batch: Batch) -> bool:
    """Tell whether a batch was sent as one that nobody waits for."""
    return batch.deadline_unix_ms < UNTIL_THE_END


def gateway_of(batch: Batch) -> str:
    """Return the reply queue of the gateway that sent a batch: there are two."""
    return batch.reply_to


def batch_in(message: DeliveredMessage) -> Batch:
    """Return the batch that a message holds."""
    return read_batch(KEYS, message.body, V2, Purpose.BATCH)
