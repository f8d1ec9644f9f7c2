"""A ledger behind a dispatcher, whose batches are answered when a test says so, and calls to it."""

import asyncio
from collections.abc import Mapping, Sequence

from gateway.ledger_client.dispatcher import BatchAnswer, BatchDispatcher
from shared.errors import LedgerUnavailable
from shared.outcome import Balance
from shared.queries import FindPlayer
from shared.wire import Answer, Question

NEVER = 60.0


class Shard:
    """A ledger whose batches are answered when a test says so, by the worker that serves their shard."""

    def __init__(self, workers: Sequence[str] = ("one",)) -> None:
        self.workers = list(workers)
        self.shards: list[int] = []
        self.batches: list[list[str]] = []
        self.under_way: list[asyncio.Future[None]] = []

    async def send(self, shard: int, questions: Sequence[Question], _deadline: float) -> BatchAnswer:
        ids = [question.player_id for question in questions if isinstance(question, FindPlayer)]
        self.shards.append(shard)
        self.batches.append(ids)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.under_way.append(ended)
        await ended
        return BatchAnswer(self.workers[shard], [Balance(player_id, "EUR", 0, 0) for player_id in ids])

    async def answer(self, error: Exception | None = None) -> None:
        """Let the oldest batch end, and everybody who waited go on."""
        ended = self.under_way.pop(0)
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def ask(dispatcher: BatchDispatcher, player_id: str, within_seconds: float = NEVER) -> asyncio.Task[Answer]:
    return asyncio.create_task(_ask(dispatcher, player_id, within_seconds))


async def _ask(dispatcher: BatchDispatcher, player_id: str, within_seconds: float) -> Answer:
    deadline = asyncio.get_running_loop().time() + within_seconds
    (answer,) = await dispatcher.call_all([FindPlayer(player_id)], deadline)
    if isinstance(answer, LedgerUnavailable):
        raise answer
    return answer


async def call_all(dispatcher: BatchDispatcher, player_ids: Sequence[str]) -> list[asyncio.Task[Answer]]:
    """Ask for the first alone, and for the others while its batch is under way."""
    tasks = [ask(dispatcher, player_ids[0])]
    await until_idle()
    tasks += [ask(dispatcher, player_id) for player_id in player_ids[1:]]
    await until_idle()
    return tasks


async def until_idle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def answer_all(shard: Shard, tasks: Sequence[asyncio.Task[Answer]]) -> None:
    """Answer batch after batch until everyone has an answer."""
    while not all(task.done() for task in tasks):
        if shard.under_way:
            await shard.answer()
        await until_idle()


async def learn_workers(shard: Shard, dispatcher: BatchDispatcher, player_ids: Mapping[int, str]) -> None:
    """Have each shard tell who serves it, by a question about the player on it."""
    for number in sorted(player_ids):
        learns = ask(dispatcher, player_ids[number])
        await until_idle()
        await answer_all(shard, [learns])


def answered_for(task: asyncio.Task[Answer]) -> str | None:
    holder = task.result()
    return holder.player_id if isinstance(holder, Balance) else None
