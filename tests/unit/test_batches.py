"""One turn of a worker: whatever goes wrong in it, nothing is lost, and the worker goes on."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import pytest
from aiormq.abc import DeliveredMessage
from aiormq.exceptions import DeliveryError, PublishError
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from structlog.testing import capture_logs

from gateway.ledger_client.questions import split
from shared.broker.topology import DEAD_QUEUE, UNSIGNED_QUEUE
from shared.errors import LedgerUnavailable
from shared.message_keys import MessageKeys, Purpose
from shared.operations import AnyOperation, Operation
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindPlayer, Query, QueryReply
from shared.wire import (
    MESSAGE_BYTES_MAX,
    V2,
    V3,
    Batch,
    BatchReply,
    Question,
    UnknownOperation,
    encode_batch,
    read_batch,
    read_replies,
    unix_ms,
)
from tests.support.credits import WIN, win
from tests.support.system import KEYS
from worker.messaging import batches as turns_module
from worker.messaging.batches import POISON_BYTES_MAX, POISON_MESSAGES_MAX, BatchProcessor, Delivery
from worker.messaging.dead_letter_publisher import DeadLetterPublisher
from worker.messaging.deliveries import Arrival, DeliveryBuffer
from worker.messaging.metrics import WorkerMetrics

REPLY_QUEUE: Final = "amq.gen-one"


class Wire:
    """A channel that notes what is done on it."""

    def __init__(self) -> None:
        self.published: list[tuple[str, bytes]] = []
        self.acked: list[int] = []
        self.rejected: list[int] = []

    async def basic_publish(self, body: bytes, *, routing_key: str, **_: Any) -> None:
        self.published.append((routing_key, body))

    async def basic_ack(self, delivery_tag: int, **_: Any) -> None:
        self.acked.append(delivery_tag)

    async def basic_reject(self, delivery_tag: int, **_: Any) -> None:
        self.rejected.append(delivery_tag)

    def told(self, version: str = V2) -> list[BatchReply]:
        replies = [read_replies(KEYS, b, version, to) for to, b in self.published if to == REPLY_QUEUE]
        return [batch for one in replies for batch in one.batches]


class Books:
    """A bookkeeper who posts everything, or fails."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked: list[Question] = []

    async def answer(
        self, operations: Sequence[AnyOperation], queries: Sequence[Query]
    ) -> tuple[list[Outcome], list[QueryReply]]:
        if self.error is not None:
            raise self.error
        self.asked += [*operations, *queries]
        return [Outcome(OutcomeCode.POSTED) for _ in operations], [None for _ in queries]


class Worker:
    """A worker's turns between such books and such a wire."""

    def __init__(self) -> None:
        self.inbox, self.wire, self.books = DeliveryBuffer(), Wire(), Books()
        books: Any = self.books
        wire: Any = self.wire
        self.metrics = WorkerMetrics()
        aside = DeadLetterPublisher(wire, self.metrics, KEYS)
        self.turns = BatchProcessor(books, self.metrics, self.inbox, wire, aside, KEYS, "worker", 1_000)

    def deliver(self, tag: int, body: bytes, *, late: bool = False, size: int = 0, version: str = V2) -> None:
        """Deliver a message, of which only `body` was gathered if `size` is larger."""
        channel: Any = self.wire
        properties = Basic.Properties(message_type=version)
        header = ContentHeader(body_size=size or len(body), properties=properties)
        message = DeliveredMessage(Basic.Deliver(delivery_tag=tag, routing_key="shard"), header, body, channel)
        (self.inbox.late if late else self.inbox.live).append(Arrival(message))


def batch(number: int, *questions: Question) -> bytes:
    operations, queries = split(questions)
    return KEYS.sign(Purpose.BATCH, encode_batch(Batch(number, unix_ms(), operations, queries, REPLY_QUEUE)))


@pytest.mark.parametrize("error", [TypeError("unknown option"), RuntimeError("closed"), MemoryError()])
async def test_defect_in_a_turn_gives_the_batch_back_and_the_worker_goes_on(error: Exception) -> None:
    worker = Worker()
    worker.books.error = error
    worker.deliver(1, batch(1, win("live")))
    worker.deliver(7, batch(7, win("late")), late=True)
    await worker.turns.process_next()
    assert (worker.wire.rejected, worker.wire.acked) == ([1], [])  # the broker moves it to the late queue
    assert worker.wire.told() == [BatchReply(1, [Outcome(OutcomeCode.UNAVAILABLE)])]
    assert not worker.inbox.has_work(), "it pauses"

    worker.books.error, worker.inbox.late_rests_until = None, 0.0
    worker.deliver(2, batch(2, win("next")))
    await worker.turns.process_next()
    assert worker.books.asked == [win("next"), win("late")]
    assert sorted(worker.wire.acked) == [2, 7]


async def test_outage_of_the_ledger_is_a_line_a_second_however_many_batches_come() -> None:
    worker = Worker()
    worker.books.error = LedgerUnavailable("the database: refused")
    with capture_logs() as lines:
        for number in range(1, 101):
            worker.deliver(number, batch(number, win(f"win-{number}")))
            await worker.turns.process_next()
        worker.turns.flush_logs()
    assert [(line["event"], line["times"], line["reason"]) for line in lines] == [
        ("ledger unavailable", 100, "the database: refused")
    ]


async def test_late_credit_that_no_ledger_takes_keeps_none_behind_it_waiting() -> None:
    worker = Worker()
    worker.deliver(1, batch(1, win("odd")), late=True)
    worker.deliver(2, batch(2, win("owed")), late=True)
    worker.books.error = ValueError("a defect of ours")
    await worker.turns.process_next()
    worker.books.error, worker.inbox.late_rests_until = None, 0.0
    await worker.turns.process_next()
    assert (worker.books.asked, worker.wire.acked) == ([win("owed")], [2])


async def test_late_queue_takes_what_was_put_aside_and_a_shard_does_not() -> None:
    worker = Worker()
    put_aside = KEYS.sign(Purpose.DEAD, encode_batch(Batch(0, unix_ms(), [win("sent back")])))
    worker.deliver(1, put_aside)
    worker.deliver(2, put_aside, late=True)
    await worker.turns.process_next()
    assert worker.wire.published == [(UNSIGNED_QUEUE, put_aside)]
    assert (worker.books.asked, sorted(worker.wire.acked)) == ([win("sent back")], [1, 2])


async def test_poison_of_one_turn_is_bounded_by_number_and_by_bytes() -> None:
    worker = Worker()
    for tag in range(1, 2 * POISON_MESSAGES_MAX):
        worker.deliver(tag, b"poison")
    await worker.turns.process_next()
    assert len(worker.wire.acked) == POISON_MESSAGES_MAX

    worker = Worker()
    for tag in range(1, 4):
        worker.deliver(tag, bytes(POISON_BYTES_MAX + 1))
    await worker.turns.process_next()
    assert worker.wire.acked == [1]


async def test_poison_is_not_settled_before_the_broker_has_it_put_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, confirmed = Worker(), asyncio.Event()
    publish = worker.wire.basic_publish

    async def publish_slowly(body: bytes, **more: Any) -> None:
        await confirmed.wait()
        await publish(body, **more)

    monkeypatch.setattr(worker.wire, "basic_publish", publish_slowly)
    worker.deliver(1, b"poison")
    turn = asyncio.create_task(worker.turns.process_next())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert worker.wire.acked == []
    confirmed.set()
    await turn
    assert worker.wire.acked == [1]


async def test_replies_too_large_for_one_message_go_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "MESSAGE_BYTES_MAX", 200)
    worker = Worker()
    for tag in range(1, 21):
        worker.deliver(tag, batch(tag, win(str(tag))))
    await worker.turns.process_next()
    assert max(len(body) for _, body in worker.wire.published) <= 200
    assert [reply.number for reply in worker.wire.told()] == list(range(1, 21))


async def test_message_that_was_not_gathered_is_left_to_the_late_queue() -> None:
    worker = Worker()
    worker.deliver(1, b"the beginning", size=MESSAGE_BYTES_MAX)
    worker.deliver(2, batch(2, win("gathered")))
    await worker.turns.process_next()
    assert (worker.wire.rejected, worker.wire.acked) == ([1], [2])
    assert worker.books.asked == [win("gathered")]
    assert worker.metrics.registry.get_sample_value("credits_worker_deferred_messages_total") == 1


@pytest.mark.parametrize("late", [False, True])
async def test_of_a_message_larger_than_any_of_ours_the_beginning_is_kept(late: bool) -> None:  # noqa: FBT001
    worker = Worker()
    worker.deliver(1, b"the beginning", late=late, size=MESSAGE_BYTES_MAX + 1)
    await worker.turns.process_next()
    assert worker.wire.published == [(UNSIGNED_QUEUE, b"the beginning")]
    assert (worker.wire.rejected, worker.wire.acked) == ([], [1])


async def test_poison_that_the_full_queue_refuses_is_dropped_and_what_is_owed_never_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker = Worker()

    async def refuse(*_: Any, **_more: Any) -> None:
        raise DeliveryError(None, Basic.Nack())

    monkeypatch.setattr(worker.wire, "basic_publish", refuse)
    worker.deliver(1, b"poison")
    await worker.turns.process_next()
    assert worker.wire.acked == [1]
    dropped = worker.metrics.registry.get_sample_value("credits_worker_dropped_messages_total", {"reason": "full"})
    assert dropped == 1

    stale = Batch(1, 0, [win("owed")], reply_to=REPLY_QUEUE)
    worker.deliver(2, KEYS.sign(Purpose.BATCH, encode_batch(stale)))
    with pytest.raises(DeliveryError):
        await worker.turns.process_next()
    assert worker.wire.acked == [1]


async def test_probes_of_a_gateway_with_other_keys_leave_room_for_its_wins() -> None:
    worker, others = Worker(), MessageKeys([b"other keys" * 4])
    sent: list[list[Question]] = [[], [FindPlayer("")], [win("owed")]]
    for tag, questions in enumerate(sent, 1):
        body = others.sign(Purpose.BATCH, encode_batch(Batch(tag, unix_ms(), *split(questions), REPLY_QUEUE)))
        worker.deliver(tag, body)
        worker.deliver(10 + tag, body, late=True)
    for _ in range(4):
        await worker.turns.process_next()
    assert sorted(worker.wire.acked) == [1, 2, 3, 11, 12, 13]
    assert [(queue, b"owed" in kept) for queue, kept in worker.wire.published] == [(UNSIGNED_QUEUE, True)] * 2
    dropped = worker.metrics.registry.get_sample_value("credits_worker_dropped_messages_total", {"reason": "unsigned"})
    assert dropped == 4


async def test_poison_that_finds_no_queue_is_delivered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker()

    async def return_it(*_: Any, **_more: Any) -> None:
        channel: Any = worker.wire
        returned = Basic.Return(exchange="", routing_key=UNSIGNED_QUEUE)
        raise PublishError(DeliveredMessage(returned, ContentHeader(), b"poison", channel), returned)

    monkeypatch.setattr(worker.wire, "basic_publish", return_it)
    worker.deliver(1, b"poison")
    with pytest.raises(PublishError):
        await worker.turns.process_next()
    assert worker.wire.acked == []


async def test_settled_poison_is_held_by_nothing() -> None:
    """A refusal is cut off from the frames that raised it: its circle held the body until the next search."""
    worker = Worker()
    gc.collect()
    gc.disable()
    try:
        worker.deliver(1, b"poison" * 10_000)
        message = weakref.ref(worker.inbox.live[0].message)
        await worker.turns.process_next()
        assert message() is None
    finally:
        gc.enable()


class Gift(Operation, frozen=True, array_like=True, tag="gift"):
    """An operation of a later version, which nobody is owed."""

    IS_OWED = False


def batch_of_a_later_version(number: int, *operations: Operation) -> bytes:
    payload = msgspec.msgpack.encode((number, unix_ms(), operations, [], REPLY_QUEUE))
    return KEYS.sign(Purpose.BATCH, payload, V3)


async def test_operation_of_a_later_version_is_kept_and_the_rest_of_its_batch_is_posted() -> None:
    worker, gift = Worker(), Gift("klas", "gift", "anna", "EUR")
    body = batch_of_a_later_version(1, win("first"), gift, win("second"))
    worker.deliver(1, body, version=V3)
    worker.deliver(2, body, late=True, version=V3)
    await worker.turns.process_next()
    assert worker.books.asked == [win("first"), win("second")] * 2
    assert sorted(worker.wire.acked) == [1, 2]
    (reply,) = worker.wire.told(V3)
    posted, unpostable = Outcome(OutcomeCode.POSTED), Outcome(OutcomeCode.UNPOSTABLE)
    assert reply == BatchReply(1, [posted, unpostable, posted], [])
    kept = [body for queue, body in worker.wire.published if queue == DEAD_QUEUE]
    for letter in kept:
        (operation,) = read_batch(KEYS, letter, V3, Purpose.DEAD).operations
        assert operation == UnknownOperation(msgspec.msgpack.encode(gift))
    assert len(kept) == 2


def test_late_batch_has_only_what_is_owed_and_no_queries() -> None:
    given_up: Any = Gift("klas", "gift", "anna", "EUR")
    batch = Batch(1, 0, [given_up, WIN, UnknownOperation(b"")], [FindPlayer("anna")])
    message: Any = None
    live, late = Delivery(message, batch), Delivery(message, batch, is_late=True)
    assert (live.operations, live.queries) == (batch.operations, batch.queries)
    assert (late.operations, list(late.queries)) == ([WIN, UnknownOperation(b"")], [])
