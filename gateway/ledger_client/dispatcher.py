"""Batching without delay: while a worker has a batch under way, further questions wait and leave together.

An idle system adds no delay, since a question that finds its lane free leaves at once; a busy one makes
batches that are as large as the ledger is slow. A message costs as much as some ten credits, so all shards
that one worker serves share a lane, and the queue of one of them for a while, which the broker then has at
hand. Who serves a shard is what the last reply over its queue said. A guess that is out of date costs time
and nothing else, since every worker may post for every player.
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
"""Of a lane: a worker that has answered one need not wait for the next."""

PIPELINED_OPERATIONS_MIN: Final = 32
"""So many must wait to leave while another batch is under way: fewer are not worth a message of their own."""

RESEND_AFTER_SECONDS: Final = 0.1
"""After so long what waits leaves, even if the batch before is not answered: its queue may have no leader."""

ROUTE_TTL_SECONDS: Final = 2.0
"""So long after a shard's queue was last used it is used again: another worker may have taken it over."""

RESOLVED_PER_TURN: Final = 16
"""So many are told before the loop looks at what came: else everyone's next question would come at once, and
the gateway would rest while the worker works, and the worker while the gateway does."""

_log = structlog.get_logger()


class BatchAnswer(NamedTuple):
    """The answers to a batch, and who gave them."""

    worker_id: str
    answers: Sequence[Answer]


Send = Callable[[int, Sequence[Question], float], Awaitable[BatchAnswer]]
"""Send a shard's worker questions and return the answers by a deadline. Raises LedgerUnavailable."""

_FutureAnswer = asyncio.Future[Answer | LedgerUnavailable]


class _PendingCall(NamedTuple):
    shard: int
    question: Question
    deadline: float
    answer: _FutureAnswer


class BatchDispatcher:
    """The lanes to the workers, and the bound on what waits in them."""

    def __init__(self, send: Send, shards: int, in_flight_max: int) -> None:
        """Take what sends a batch, the number of shards, and how many questions may wait at once."""
        self._send: Final = send
        # Until replies tell who serves which shard, all share one: every shard's worker can answer for any.
        self._lanes: Final = [WorkerQueue("", self._ask_worker)] * shards
        self._in_use: Final = WeakSet(self._lanes)  # also those that have lost their last shard
        self._believed_until: Final = [0.0] * shards
        self._in_flight_max: Final = in_flight_max
        self.in_flight = 0
        self._callers: Final = ConcurrencyLimit()

    @property
    def shards(self) -> int:
        """How many shards are used."""
        return len(self._lanes)

    def use_shards(self, shards: int) -> None:
        """Use so many shards from the next batch on. What waits for one beyond them leaves over another."""
        self._lanes[shards:] = self._lanes[:1] * (shards - len(self._lanes))
        self._believed_until[shards:] = [0.0] * (shards - len(self._believed_until))
        for lane in self._in_use:
            if lane.shard is not None and lane.shard >= shards:
                lane.shard = None

    def is_overloaded(self, more: int = 0) -> bool:
        """Tell whether who asks now would only make all wait longer; so many more are about to ask."""
        return self.in_flight + more >= self._in_flight_max or self._callers.is_exceeded(
            more, asyncio.get_running_loop().time()
        )

    async def call_all(self, questions: Sequence[Question], deadline: float) -> list[Answer | LedgerUnavailable]:
        """Return the answers by `deadline`; in place of one that is not there in time, why.

        Overload is refused here, before anything is sent: a refusal in time is worth more to a provider
        than an answer too late, and what was never sent can't be posted behind its back.
        """
        taken = questions[: max(0, self._in_flight_max - self.in_flight)]
        answers = [self._enqueue(question, deadline) for question in taken]
        loop = asyncio.get_running_loop()
        late = loop.call_at(deadline, _fail, answers, "no answer in time")
        self.in_flight += len(taken)
        self._callers.waiting += 1
        try:
            told = [await answer for answer in answers]
            if told and not isinstance(told[-1], LedgerUnavailable):
                self._callers.record_answer(loop.time())
        finally:
            late.cancel()
            self.in_flight -= len(taken)
            self._callers.waiting -= 1
        too_many = LedgerUnavailable("too many questions are in flight")
        return told + [too_many] * (len(questions) - len(taken))

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the answer to a question that leaves before all that wait, and is not counted among them.

        Raises LedgerUnavailable when there is none by `deadline`.
        """
        shard = shard_of(_routing_key(question), len(self._lanes))
        future = self._lanes[shard].enqueue_first(shard, question, deadline)
        late = asyncio.get_running_loop().call_at(deadline, _fail, [future], "no answer in time")
        try:
            answer = await future
        finally:
            late.cancel()
        if isinstance(answer, LedgerUnavailable):
            raise answer
        return answer

    def _enqueue(self, question: Question, deadline: float) -> _FutureAnswer:
        shard = shard_of(_routing_key(question), len(self._lanes))
        return self._lanes[shard].enqueue(shard, question, deadline)

    async def close(self) -> None:
        """Fail what waits, and return when what is under way has ended."""
        for lane in list(self._in_use):
            await lane.close()

    async def _ask_worker(self, lane: "WorkerQueue", batch: Sequence[_PendingCall]) -> Sequence[Answer]:
        """Send a batch over a queue that the lane's worker serves, and learn who does serve it."""
        shard, deadline = self._shard_to_use(lane, batch[0].shard), max(call.deadline for call in batch)
        questions = [call.question for call in batch]
        try:
            try:
                worker_id, answers = await self._send(shard, questions, deadline)
            except ShardMissing:  # the questions have reached nobody
                shard = self._other_than(shard)
                worker_id, answers = await self._send(shard, questions, deadline)
        except LedgerUnavailable:
            lane.shard = None
            raise
        if len(answers) != len(batch):
            raise LedgerUnavailable(f"{len(answers)} answers to {len(batch)} questions")
        if shard >= len(self._lanes):  # it is used no more
            return answers
        if self._lanes[shard].worker_id != worker_id:
            known = (lane for lane in self._lanes if lane.worker_id == worker_id)
            self._lanes[shard] = next(known, None) or WorkerQueue(worker_id, self._ask_worker)
            self._in_use.add(self._lanes[shard])
        self._lanes[shard].shard = shard
        return answers

    def _other_than(self, missing: int) -> int:
        """Use none from the missing shard on, as long as the first is there; return another to send over."""
        if 0 < missing < len(self._lanes):
            self.use_shards(missing)
        return 0 if missing else len(self._lanes) - 1

    def _shard_to_use(self, lane: "WorkerQueue", shard: int) -> int:
        """Return the shard that the lane used last, unless it must be seen whether `shard` is still in it."""
        shard, now = shard % len(self._lanes), asyncio.get_running_loop().time()
        if lane.shard is not None and self._lanes[lane.shard] is lane and now < self._believed_until[shard]:
            return lane.shard
        self._believed_until[shard] = now + ROUTE_TTL_SECONDS
        return shard


def _routing_key(question: Question) -> str:
    return question.session_id if isinstance(question, FindSession) else question.player_id


class WorkerQueue:
    """One worker: what waits for it, and the batches under way."""

    def __init__(
        self,
        worker_id: str,
        ask_worker: Callable[["WorkerQueue", Sequence[_PendingCall]], Awaitable[Sequence[Answer]]],
    ) -> None:
        self.worker_id: Final = worker_id
        self.shard: int | None = None
        """That its batches go over, until another does."""

        self._ask_worker: Final = ask_worker
        self._waiting: Final[deque[_PendingCall]] = deque()
        self._in_flight: Final[set[asyncio.Task[None]]] = set()
        self._is_flush_scheduled = False
        self._last_sent_at = 0.0
        self._batch_seconds = 0.0

    def enqueue(self, shard: int, question: Question, deadline: float) -> _FutureAnswer:
        """Return the future answer, which is there already when it would come too late."""
        loop = asyncio.get_running_loop()
        answer: _FutureAnswer = loop.create_future()
        if self._waiting and loop.time() + self._wait_seconds() > deadline:
            _fail([answer], "the ledger is too busy to answer in time")
            return answer
        self._waiting.append(_PendingCall(shard, question, deadline, answer))
        self._schedule_flush()
        return answer

    def enqueue_first(self, shard: int, question: Question, deadline: float) -> _FutureAnswer:
        """Return the future answer to what leaves with the next batch."""
        answer: _FutureAnswer = asyncio.get_running_loop().create_future()
        self._waiting.appendleft(_PendingCall(shard, question, deadline, answer))
        self._schedule_flush()
        return answer

    def _schedule_flush(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._is_flush_scheduled and self._may_send(loop.time()):
            self._is_flush_scheduled = True
            loop.call_soon(self._flush)  # with those that are put meanwhile

    async def close(self) -> None:
        """Fail what waits; let the batches under way end."""
        _fail([call.answer for call in self._waiting], "the gateway is stopping")
        self._waiting.clear()
        await asyncio.gather(*self._in_flight)

    def _wait_seconds(self) -> float:
        """Estimate when a question put now is answered: the batch under way, then those before it."""
        return self._batch_seconds * (2 + len(self._waiting) // BATCH_OPERATIONS_MAX)

    def _flush(self) -> None:
        self._is_flush_scheduled = False
        loop = asyncio.get_running_loop()
        while self._may_send(loop.time()) and (batch := self._next_batch()):
            if self._in_flight and loop.time() >= self._last_sent_at + RESEND_AFTER_SECONDS:
                self.shard = None  # another queue may have a leader
            self._last_sent_at = loop.time()
            loop.call_later(RESEND_AFTER_SECONDS, self._flush)
            task = loop.create_task(self._send_batch(batch))
            self._in_flight.add(task)
            task.add_done_callback(self._on_batch_done)

    def _may_send(self, now: float) -> bool:
        if not self._waiting or len(self._in_flight) >= BATCHES_IN_FLIGHT_MAX:
            return False
        waited_for = self._in_flight and now < self._last_sent_at + RESEND_AFTER_SECONDS
        return not waited_for or len(self._waiting) >= PIPELINED_OPERATIONS_MIN

    def _on_batch_done(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._flush()

    def _next_batch(self) -> list[_PendingCall]:
        """Take what waits, up to the bound, without those who no longer wait."""
        batch: list[_PendingCall] = []
        while self._waiting and len(batch) < BATCH_OPERATIONS_MAX:
            call = self._waiting.popleft()
            if not call.answer.done():
                batch.append(call)
        return batch

    async def _send_batch(self, batch: Sequence[_PendingCall]) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answers = await self._ask_worker(self, batch)
        except LedgerUnavailable as error:
            _fail([call.answer for call in batch], str(error))
        except Exception as error:  # noqa: BLE001  (a fault of ours; everyone still gets a reply)
            _log.exception("a batch failed", worker=self.worker_id)
            _fail([call.answer for call in batch], f"internal error: {type(error).__name__}")
        else:
            # Only of answers: an outage tells nothing of how fast the ledger is when it is back.
            self._batch_seconds += (clock() - began - self._batch_seconds) / 4
            await _resolve(batch, answers)


async def _resolve(batch: Sequence[_PendingCall], answers: Sequence[Answer]) -> None:
    for number, (call, answer) in enumerate(zip(batch, answers, strict=True), 1):
        if not call.answer.done():
            call.answer.set_result(answer)
        if number % RESOLVED_PER_TURN == 0:
            await asyncio.sleep(0)


def _fail(answers: Iterable[_FutureAnswer], reason: str) -> None:
    unavailable = LedgerUnavailable(reason)
    for answer in answers:
        if not answer.done():
            answer.set_result(unavailable)
