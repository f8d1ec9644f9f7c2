"""A gateway uses as many shards as are served, and changes their number while questions wait."""

import asyncio
from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from gateway.ledger_client import shard_search
from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.dispatcher import BatchAnswer, BatchDispatcher
from gateway.ledger_client.shard_search import ShardSearch
from shared.broker.topology import SHARDS_MAX, shard_of
from shared.errors import LedgerUnavailable, ShardMissing
from shared.settings import BrokerSettings
from shared.wire import Question
from tests.support.dispatchers import Shard, answer_all, answered_for, ask, call_all, learn_workers, until_idle


def players(shards: int) -> dict[int, str]:
    """Return a player on each of so many shards."""
    return {shard_of(str(n), shards): str(n) for n in range(20 * shards)}


class Broker(Shard):
    """Shards of which some have no queue, so that what is sent to them comes back."""

    def __init__(self, workers: Sequence[str], missing: Sequence[int]) -> None:
        super().__init__(workers)
        self.missing = missing

    async def send(self, shard: int, questions: Sequence[Question], deadline: float) -> BatchAnswer:
        if shard in self.missing:
            self.shards.append(shard)
            raise ShardMissing("no queue")
        return await super().send(shard, questions, deadline)


async def test_further_shards_are_used_from_the_next_batch_on() -> None:
    shard = Shard(["one", "one", "other"])
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(100))
    await learn_workers(shard, dispatcher, players(1))
    dispatcher.use_shards(3)
    assert dispatcher.shards == 3
    await learn_workers(shard, dispatcher, players(3))
    assert shard.shards == [0, 0, 1, 2]
    tasks = [ask(dispatcher, player_id) for player_id in players(3).values()]
    await until_idle()
    assert len(shard.batches[4:]) == 2, "one for each worker"
    await answer_all(shard, tasks)


async def test_what_waits_for_a_shard_that_is_used_no_more_leaves_over_another() -> None:
    shard, on = Shard(["one", "other"]), players(2)
    dispatcher = BatchDispatcher(shard.send, 2, ConcurrencyLimit(100))
    await learn_workers(shard, dispatcher, on)
    under_way, waiting = await call_all(dispatcher, [on[1], on[1]])
    dispatcher.use_shards(1)
    await answer_all(shard, [under_way, waiting])
    assert shard.shards == [0, 1, 1, 0]
    assert answered_for(under_way) == answered_for(waiting) == on[1]
    await answer_all(shard, [ask(dispatcher, on[1])])
    assert shard.shards[4:] == [0]


async def test_batch_without_a_queue_leaves_over_the_first_shard_and_later_ones_too() -> None:
    broker, on = Broker(["one"] * 4, missing=[2, 3]), players(4)
    dispatcher = BatchDispatcher(broker.send, 4, ConcurrencyLimit(100))
    for shard in (2, 3, 1):
        task = ask(dispatcher, on[shard])
        await answer_all(broker, [task])
        assert answered_for(task) == on[shard]
    assert dispatcher.shards == 2
    assert broker.shards[:2] == [2, 0]
    assert not {2, 3} & set(broker.shards[2:])


async def test_first_shard_without_a_queue_is_made_again_and_others_serve_meanwhile() -> None:
    broker, on = Broker(["one"] * 3, missing=[0]), players(3)
    dispatcher = BatchDispatcher(broker.send, 3, ConcurrencyLimit(100))
    task = ask(dispatcher, on[0])
    await answer_all(broker, [task])
    assert broker.shards == [0, 2]
    assert answered_for(task) == on[0]
    assert dispatcher.shards == 3


async def test_where_no_shard_has_a_queue_the_provider_is_told_to_ask_again() -> None:
    broker = Broker(["one"] * 3, missing=range(3))
    with pytest.raises(LedgerUnavailable, match="no queue"):
        await ask(BatchDispatcher(broker.send, 3, ConcurrencyLimit(100)), "anna")


@pytest.mark.parametrize(
    ("served", "setting", "used"),
    [(range(16), 16, 16), (range(16), 32, 16), (range(32), 8, 8), ([0, 1, 3], 4, 2), ([0], 4, 1), ([], 4, 1)],
)
async def test_as_many_shards_are_used_as_are_served_and_set(
    monkeypatch: pytest.MonkeyPatch, served: Sequence[int], setting: int, used: int
) -> None:
    monkeypatch.setattr(shard_search, "CHECK_SECONDS", 0)

    async def send(shard: int, questions: Sequence[Question], _deadline: float) -> BatchAnswer:
        assert not questions
        await asyncio.sleep(0)
        if shard not in served:
            raise LedgerUnavailable("no answer in time")
        return BatchAnswer("one", [])

    dispatcher = BatchDispatcher(send, 1, ConcurrencyLimit(100))
    search = asyncio.create_task(ShardSearch(dispatcher, send, setting).run())
    for _ in range(30):
        await asyncio.sleep(0)
    assert dispatcher.shards == used
    search.cancel()


def test_workers_look_for_as_many_shards_as_a_setting_may_say() -> None:
    assert BrokerSettings(shards=SHARDS_MAX).shards == SHARDS_MAX
    with pytest.raises(ValidationError):
        BrokerSettings(shards=SHARDS_MAX + 1)
