"""Batching without delay: while a shard has a batch under way, further questions wait and leave together.

An idle system adds no delay, since a question that finds its lane free leaves at once; a busy one makes
batches that are as large as the ledger is slow. Each shard has one lane, which keeps a player's order.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

import structlog

from shared.errors import LedgerUnavailable
from shared.topology import shard_of
from shared.wire import Answer, FindSession, Question

BATCH_QUESTIONS_MAX: Final = 500

_log = structlog.get_logger()

Send = Callable[[int, Sequence[Question], float], Awaitable[Sequence[Answer]]]
"""Send a shard its questions and return the answers by a deadline. Raises LedgerUnavailable."""


class _Call(NamedTuple):
    question: Question
    deadline: float
    answer: asyncio.Future[Answer]


class Lanes:
    """The lanes to the shards, and the bound on what waits in them."""

    def __init__(self, send: Send, shards: int, in_flight_max: int) -> None:
        """Take what sends a batch, the number of shards, and how many questions may wait at once."""
        self._lanes: Final = [_Lane(send, shard) for shard in range(shards)]
        self._in_flight_max: Final = in_flight_max
        self.in_flight = 0

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Return the answer by `deadline`. Raises LedgerUnavailable: too many wait, or there is none in time.

        Overload is refused here, before anything is sent: a refusal in time is worth more to a provider
        than an answer too late, and what was never sent can't be posted behind its back.
        """
        if self.in_flight >= self._in_flight_max:
            raise LedgerUnavailable("too many questions are in flight")
        lane = self._lanes[shard_of(_routing_key(question), len(self._lanes))]
        answer = lane.put(question, deadline)
        late = answer.get_loop().call_at(deadline, _fail, answer, "no answer in time")
        self.in_flight += 1
        try:
            return await answer
        finally:
            late.cancel()
            self.in_flight -= 1

    async def close(self) -> None:
        """Fail what waits, and return when what is under way has ended."""
        for lane in self._lanes:
            await lane.close()


def _routing_key(question: Question) -> str:
    return question.session_id if isinstance(question, FindSession) else question.player_id


class _Lane:
    """One shard: what waits, and the batch under way."""

    def __init__(self, send: Send, shard: int) -> None:
        self._send: Final = send
        self._shard: Final = shard
        self._waiting: Final[deque[_Call]] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._batch_seconds = 0.0

    def put(self, question: Question, deadline: float) -> asyncio.Future[Answer]:
        """Return the future answer. Raises LedgerUnavailable when it would come too late."""
        loop = asyncio.get_running_loop()
        if self._waiting and loop.time() + self._wait_seconds() > deadline:
            raise LedgerUnavailable("the ledger is too busy to answer in time")
        call = _Call(question, deadline, loop.create_future())
        self._waiting.append(call)
        if self._sending is None:
            self._sending = loop.create_task(self._send_all())
        return call.answer

    async def close(self) -> None:
        """Fail what waits; let the batch under way end."""
        while self._waiting:
            _fail(self._waiting.popleft().answer, "the gateway is stopping")
        if self._sending is not None:
            await self._sending

    def _wait_seconds(self) -> float:
        """Estimate when a question put now is answered: the batch under way, then those before it."""
        return self._batch_seconds * (2 + len(self._waiting) // BATCH_QUESTIONS_MAX)

    async def _send_all(self) -> None:
        """Send batch after batch while something waits."""
        try:
            while batch := self._next_batch():
                await self._send_batch(batch)
        finally:
            self._sending = None

    def _next_batch(self) -> list[_Call]:
        """Take what waits, up to the bound, without those who no longer wait."""
        batch: list[_Call] = []
        while self._waiting and len(batch) < BATCH_QUESTIONS_MAX:
            call = self._waiting.popleft()
            if not call.answer.done():
                batch.append(call)
        return batch

    async def _send_batch(self, batch: Sequence[_Call]) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            answers = await self._send(
                self._shard, [call.question for call in batch], max(call.deadline for call in batch)
            )
        except LedgerUnavailable as error:
            for call in batch:
                _fail(call.answer, str(error))
        except Exception as error:  # noqa: BLE001  (a fault of ours; everyone still gets a reply)
            _log.exception("a batch failed", shard=self._shard)
            for call in batch:
                _fail(call.answer, f"internal error: {type(error).__name__}")
        else:
            for call, answer in zip(batch, answers, strict=True):
                if not call.answer.done():
                    call.answer.set_result(answer)
            # Only of answers: an outage tells nothing of how fast the ledger is when it is back.
            self._batch_seconds += (clock() - began - self._batch_seconds) / 4


def _fail(answer: asyncio.Future[Answer], reason: str) -> None:
    if not answer.done():
        answer.set_exception(LedgerUnavailable(reason))
