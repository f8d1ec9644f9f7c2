"""Batching without delay: while a worker has a batch under way, further calls wait and leave together.

An idle system adds no delay, since a call whose worker is free leaves at once; a busy one makes batches that are
as large as the ledger is slow. A message costs about as much as ten credits, so all shards that one worker serves
share a `WorkerQueue`. Its batches go over the broker queue of the same shard for a while, since the broker is faster
with a queue that was used just now. Which worker serves a shard is known from the last reply to a batch that went
over that shard. When this is out of date it costs time and nothing else: every worker may post for every player.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, NamedTuple
from weakref import WeakSet

import structlog

from gateway.ledger_client.concurrency import ConcurrencyLimit
from shared.broker.topology import shard_of
from shared.errors import LedgerUnavailable, ShardMissing
from shared.queries import FindSession
from shared.wire import BATCH_OPERATIONS_MAX, Answer, Question

BATCHES_IN_FLIGHT_MAX: Final = 4
"""Batches that one worker may have at once, so that it need not wait for the next when it has answered one."""

PIPELINED_OPERATIONS_MIN: Final = 32
"""How many calls must wait to leave while another batch is under way; fewer are not worth a message."""

RESEND_AFTER_SECONDS: Final = 0.1
"""How long after a batch the waiting calls leave even if it is not answered: its queue may have no leader."""

ROUTE_TTL_SECONDS: Final = 2.0
"""How long a shard's calls may go over another shard's queue. Then they go over its own once, since another worker
may have taken the shard over."""

RESOLVED_PER_TURN: Final = 16
"""How many calls get their reply in one turn of the event loop. If all did, their callers' next calls would arrive
together, and of gateway and worker one would always be idle."""

_log = structlog.get_logger()


class BatchAnswer(NamedTuple):
    """The replies to a batch, and the worker that sent them."""

    worker_id: str
    answers: Sequence[Answer]


Send = Callable[[int, Sequence[Question], float], Awaitable[BatchAnswer]]
"""Sends a batch over a shard's queue and returns the replies by a deadline. Raises LedgerUnavailable."""

_FutureReply = asyncio.Future[Answer | LedgerUnavailable]


class _PendingCall(NamedTuple):
    shard: int
    question: Question
    deadline: float
    reply: _FutureReply


class BatchDispatcher:
    """Gives each call to the queue of the worker that serves its player's shard."""

    def __init__(self, send: Send, shards: int, limit: ConcurrencyLimit) -> None:
        """Take the function that sends a batch, the number of shards, and the limit that calls are counted in."""
        self._send: Final = send
        # Until replies tell which worker serves a shard, all shards have one queue: any worker can reply to any call.
        self._queues: Final = [WorkerQueue("", self._send_batch)] * shards
        """The queue of each shard's worker, by shard."""
        self._all_queues: Final = WeakSet(self._queues)
        """Also those that serve no shard any more, while calls wait in them."""
        self._route_expires_at: Final = [0.0] * shards
        self._limit: Final = limit

    @property
    def shards(self) -> int:
        """How many shards are used."""
        return len(self._queues)

    def use_shards(self, shards: int) -> None:
        """Use this number of shards from the next batch on. Calls that wait for a removed one leave over another."""
        self._queues[shards:] = self._queues[:1] * (shards - len(self._queues))
        self._route_expires_at[shards:] = [0.0] * (shards - len(self._route_expires_at))
        for queue in self._all_queues:
            if queue.shard is not None and queue.shard >= shards:
                queue.shard = None

    async def call_all(self, questions: Sequence[Question], deadline: float) -> list[Answer | LedgerUnavailable]:
        """Return the replies by `deadline`; in place of one that is missing then, the reason.

        What the limit has no room for is refused here, before anything is sent: a refusal in time is worth more
        to a provider than a reply too late, and what was never sent can't be posted later.
        """
        accepted = questions[: self._limit.free]
        futures = [self._enqueue(question, deadline) for question in accepted]
        loop = asyncio.get_running_loop()
        timeout = loop.call_at(deadline, _fail, futures, "no answer in time")
        self._limit.enter(len(accepted))
        try:
            replies = [await future for future in futures]
            if replies and not isinstance(replies[-1], LedgerUnavailable):
                self._limit.record_reply(loop.time())
        finally:
            timeout.cancel()
            self._limit.leave(len(accepted))
        refused = LedgerUnavailable("too many questions are in flight")
        return replies + [refused] * (len(questions) - len(accepted))

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the reply to a call that overtakes all that wait and is not counted in the limit.

        Raises LedgerUnavailable when there is none by `deadline`.
        """
        shard = shard_of(_routing_key(question), len(self._queues))
        future = self._queues[shard].enqueue_first(shard, question, deadline)
        timeout = asyncio.get_running_loop().call_at(deadline, _fail, [future], "no answer in time")
        try:
            reply = await future
        finally:
            timeout.cancel()
        if isinstance(reply, LedgerUnavailable):
            raise reply
        return reply

    def _enqueue(self, question: Question, deadline: float) -> _FutureReply:
        shard = shard_of(_routing_key(question), len(self._queues))
        return self._queues[shard].enqueue(shard, question, deadline)

    async def close(self) -> None:
        """Fail the calls that wait, and return when the batches under way have ended."""
        for queue in list(self._all_queues):
            await queue.close()

    async def _send_batch(self, queue: "WorkerQueue", batch: Sequence[_PendingCall]) -> Sequence[Answer]:
        """Send a worker's batch over a shard that it serves, and record which worker has replied."""
        shard, deadline = self._route(queue, batch[0].shard), max(call.deadline for call in batch)
        questions = [call.question for call in batch]
        try:
            try:
                worker_id, answers = await self._send(shard, questions, deadline)
            except ShardMissing:  # the batch has reached no queue, so it may be sent again
                shard = self._drop_missing(shard)
                worker_id, answers = await self._send(shard, questions, deadline)
        except LedgerUnavailable:
            queue.shard = None
            raise
        if len(answers) != len(batch):
            raise LedgerUnavailable(f"{len(answers)} answers to {len(batch)} questions")
        if shard < len(self._queues):  # else it is not used any more
            self._record_worker(shard, worker_id)
        return answers

    def _record_worker(self, shard: int, worker_id: str) -> None:
        """Move a shard to the queue of the worker that has replied over it."""
        if self._queues[shard].worker_id != worker_id:
            known = (queue for queue in self._queues if queue.worker_id == worker_id)
            self._queues[shard] = next(known, None) or WorkerQueue(worker_id, self._send_batch)
            self._all_queues.add(self._queues[shard])
        self._queues[shard].shard = shard

    def _drop_missing(self, missing: int) -> int:
        """Stop using the missing shard and those after it, unless it is the first; return another to send over."""
        if 0 < missing < len(self._queues):
            self.use_shards(missing)
        return 0 if missing else len(self._queues) - 1

    def _route(self, queue: "WorkerQueue", shard: int) -> int:
        """Return the shard that the worker's last batch went over, or `shard` itself when its route has expired."""
        shard, now = shard % len(self._queues), asyncio.get_running_loop().time()
        if queue.shard is not None and self._queues[queue.shard] is queue and now < self._route_expires_at[shard]:
            return queue.shard
        self._route_expires_at[shard] = now + ROUTE_TTL_SECONDS
        return shard


def _routing_key(question: Question) -> str:
    return question.session_id if isinstance(question, FindSession) else question.player_id


class WorkerQueue:
    """The calls that wait for one worker, and its batches under way."""

    def __init__(
        self,
        worker_id: str,
        send: Callable[["WorkerQueue", Sequence[_PendingCall]], Awaitable[Sequence[Answer]]],
    ) -> None:
        self.worker_id: Final = worker_id
        self.shard: int | None = None
        """The shard that the last batch was answered over, if it is to be used again."""

        self._send: Final = send
        self._waiting: Final[deque[_PendingCall]] = deque()
        self._in_flight: Final[set[asyncio.Task[None]]] = set()
        self._is_flush_scheduled = False
        self._last_sent_at = 0.0
        self._batch_seconds = 0.0
        """How long a batch takes, as a moving average."""

    def enqueue(self, shard: int, question: Question, deadline: float) -> _FutureReply:
        """Return the future reply, which is a failure at once where the real one would come too late."""
        loop = asyncio.get_running_loop()
        future: _FutureReply = loop.create_future()
        if self._waiting and loop.time() + self._wait_seconds() > deadline:
            _fail([future], "the ledger is too busy to answer in time")
            return future
        self._waiting.append(_PendingCall(shard, question, deadline, future))
        self._schedule_flush()
        return future

    def enqueue_first(self, shard: int, question: Question, deadline: float) -> _FutureReply:
        """Return the future reply to a call that leaves with the next batch."""
        future: _FutureReply = asyncio.get_running_loop().create_future()
        self._waiting.appendleft(_PendingCall(shard, question, deadline, future))
        self._schedule_flush()
        return future

    def _schedule_flush(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._is_flush_scheduled and self._may_send(loop.time()):
            self._is_flush_scheduled = True
            loop.call_soon(self._flush)  # with all calls that are enqueued until then

    async def close(self) -> None:
        """Fail the calls that wait; let the batches under way end."""
        _fail([call.reply for call in self._waiting], "the gateway is stopping")
        self._waiting.clear()
        await asyncio.gather(*self._in_flight)

    def _wait_seconds(self) -> float:
        """Estimate how long a call enqueued now waits: for the batch under way, those queued, and its own."""
        return self._batch_seconds * (2 + len(self._waiting) // BATCH_OPERATIONS_MAX)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        loop = asyncio.get_running_loop()
        while self._may_send(loop.time()) and (batch := self._next_batch()):
            if self._in_flight and loop.time() >= self._last_sent_at + RESEND_AFTER_SECONDS:
                self.shard = None  # the queue of another shard may have a leader
            self._last_sent_at = loop.time()
            loop.call_later(RESEND_AFTER_SECONDS, self._flush)
            task = loop.create_task(self._run_batch(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._on_batch_done)

    def _may_send(self, now: float) -> bool:
        if not self._waiting or len(self._in_flight) >= BATCHES_IN_FLIGHT_MAX:
            return False
        awaits_reply = self._in_flight and now < self._last_sent_at + RESEND_AFTER_SECONDS
        return not awaits_reply or len(self._waiting) >= PIPELINED_OPERATIONS_MIN

    def _on_batch_done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._flush()

    def _next_batch(self) -> list[_PendingCall]:
        """Remove waiting calls up to the bound of a batch, and return those whose callers still wait."""
        batch: list[_PendingCall] = []
        while self._waiting and len(batch) < BATCH_OPERATIONS_MAX:
            call = self._waiting.popleft()
            if not call.reply.done():
                batch.append(call)
        return batch

    async def _run_batch(self, batch: Sequence[_PendingCall]) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            answers = await self._send(self, batch)
        except LedgerUnavailable as error:
            _fail([call.reply for call in batch], str(error))
        except Exception as error:  # noqa: BLE001  (a defect of ours; every caller still gets a reply)
            _log.exception("a batch failed", worker=self.worker_id)
            _fail([call.reply for call in batch], f"internal error: {type(error).__name__}")
        else:
            # Only answered batches count: how long an outage took does not show how fast the ledger is after it.
            self._batch_seconds += (clock() - started - self._batch_seconds) / 4
            await _resolve(batch, answers)


async def _resolve(batch: Sequence[_PendingCall], answers: Sequence[Answer]) -> None:
    """Give each call its reply, a few in each turn of the event loop."""
    for number, (call, answer) in enumerate(zip(batch, answers, strict=True), 1):
        if not call.reply.done():
            call.reply.set_result(answer)
        if number % RESOLVED_PER_TURN == 0:
            await asyncio.sleep(0)


def _fail(futures: Iterable[_FutureReply], reason: str) -> None:
    """Give each call that has no reply yet the reason why it gets none."""
    unavailable = LedgerUnavailable(reason)
    for future in futures:
        if not future.done():
            future.set_result(unavailable)
