"""The dispatcher: no delay when idle, batches when busy, and a reply for everyone whatever happens."""

import asyncio
from collections.abc import Sequence

import pytest

from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.dispatcher import (
    BATCHES_IN_FLIGHT_MAX,
    PIPELINED_OPERATIONS_MIN,
    RESEND_AFTER_SECONDS,
    RESOLVED_PER_TURN,
    BatchAnswer,
    BatchDispatcher,
)
from shared.broker.topology import shard_of
from shared.errors import LedgerUnavailable
from shared.outcome import Balance
from shared.wire import BATCH_OPERATIONS_MAX, Question
from tests.support.dispatchers import Shard, answer_all, answered_for, ask, call_all, learn_workers, until_idle


async def test_question_on_an_idle_lane_leaves_at_once() -> None:
    shard = Shard()
    task = ask(BatchDispatcher(shard.send, 1, ConcurrencyLimit(10)), "a")
    await until_idle()
    assert shard.batches == [["a"]]
    await shard.answer()
    await task
    assert answered_for(task) == "a"


async def test_questions_that_wait_leave_together_in_their_order() -> None:
    shard = Shard()
    tasks = await call_all(BatchDispatcher(shard.send, 1, ConcurrencyLimit(10)), "abcd")
    assert shard.batches == [["a"]]
    await shard.answer()
    await until_idle()
    assert shard.batches == [["a"], ["b", "c", "d"]]
    await shard.answer()
    await asyncio.gather(*tasks)
    assert [answered_for(task) for task in tasks] == ["a", "b", "c", "d"]


async def test_batch_is_bounded() -> None:
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(10 * BATCH_OPERATIONS_MAX))
    tasks = await call_all(dispatcher, [str(n) for n in range(BATCH_OPERATIONS_MAX + 2)])
    await answer_all(shard, tasks)
    assert [len(batch) for batch in shard.batches] == [1, BATCH_OPERATIONS_MAX, 1]


async def test_what_is_worth_a_message_does_not_wait_for_the_answer_to_another() -> None:
    shard, each = Shard(), PIPELINED_OPERATIONS_MIN
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(1_000))
    tasks = [ask(dispatcher, "first")]
    for _ in range(BATCHES_IN_FLIGHT_MAX):
        await until_idle()
        tasks += [ask(dispatcher, str(n)) for n in range(each)]
    await until_idle()
    assert [len(batch) for batch in shard.batches] == [1, *[each] * (BATCHES_IN_FLIGHT_MAX - 1)]
    await answer_all(shard, tasks)
    assert len(shard.batches[-1]) == each


async def test_batch_that_is_never_answered_holds_nobody_up_for_long() -> None:
    """A reply is lost, or a queue has no leader: others are served while the gateway still waits for it."""
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(10))
    lost, other = await call_all(dispatcher, "ab")
    assert shard.batches == [["a"]]
    await asyncio.sleep(2 * RESEND_AFTER_SECONDS)
    assert shard.batches == [["a"], ["b"]]
    shard.under_way.pop().set_result(None)
    await other
    assert answered_for(other) == "b"
    assert not lost.done()
    await answer_all(shard, [lost])


async def test_queue_that_has_no_leader_does_not_get_the_next_batch_too() -> None:
    shard = Shard(["one", "one"])
    dispatcher, on = (
        BatchDispatcher(shard.send, 2, ConcurrencyLimit(100)),
        {shard_of(player_id, 2): player_id for player_id in "abcdefgh"},
    )
    await learn_workers(shard, dispatcher, on)
    stuck = await call_all(dispatcher, [on[1], on[0]])
    assert shard.shards == [0, 1, 1]
    await asyncio.sleep(2 * RESEND_AFTER_SECONDS)
    assert shard.shards == [0, 1, 1, 0]
    await answer_all(shard, stuck)


async def test_answers_are_told_few_at_a_time_so_that_the_gateway_goes_on_reading() -> None:
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(1_000))
    tasks = [ask(dispatcher, str(n)) for n in range(3 * RESOLVED_PER_TURN)]
    await until_idle()
    told = set()
    shard.under_way[0].set_result(None)
    while not tasks[-1].done():
        await asyncio.sleep(0)
        told.add(sum(task.done() for task in tasks))
    assert told == {0, RESOLVED_PER_TURN, 2 * RESOLVED_PER_TURN, 3 * RESOLVED_PER_TURN}


async def test_shards_of_one_worker_share_a_message() -> None:
    shard = Shard(["one", "other", "one"])
    dispatcher, on = (
        BatchDispatcher(shard.send, 3, ConcurrencyLimit(100)),
        {shard_of(player_id, 3): player_id for player_id in "abcdefgh"},
    )
    await learn_workers(shard, dispatcher, on)
    tasks = [ask(dispatcher, on[number]) for number in range(3)]
    await until_idle()
    assert shard.batches[3:] == [[on[0], on[2]], [on[1]]]
    await answer_all(shard, tasks)


async def test_worker_is_sent_its_batches_over_one_queue() -> None:
    shard = Shard(["one", "other", "one"])
    dispatcher, on = (
        BatchDispatcher(shard.send, 3, ConcurrencyLimit(100)),
        {shard_of(player_id, 3): player_id for player_id in "abcdefgh"},
    )
    await learn_workers(shard, dispatcher, on)
    await learn_workers(shard, dispatcher, on)
    assert shard.shards == [0, 1, 2, *[2, 1, 2]]


async def test_queue_that_failed_is_used_no_more() -> None:
    """It may have no leader, while another queue of the same worker has one."""
    shard = Shard(["one", "one"])
    dispatcher, on = (
        BatchDispatcher(shard.send, 2, ConcurrencyLimit(100)),
        {shard_of(player_id, 2): player_id for player_id in "abcdefgh"},
    )
    await learn_workers(shard, dispatcher, on)
    fails = ask(dispatcher, on[0])
    await until_idle()
    await shard.answer(LedgerUnavailable("gone"))
    with pytest.raises(LedgerUnavailable):
        await fails
    await answer_all(shard, [ask(dispatcher, on[0])])
    assert shard.shards == [0, 1, 1, 0]


async def test_shard_that_another_worker_took_over_leaves_its_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ledger_client.dispatcher.ROUTE_TTL_SECONDS", 0.0)  # as some seconds later
    shard = Shard(["one", "one"])
    dispatcher, on = (
        BatchDispatcher(shard.send, 2, ConcurrencyLimit(100)),
        {shard_of(player_id, 2): player_id for player_id in "abcdefgh"},
    )
    for workers in (["one", "one"], ["one", "other"]):
        shard.workers = workers
        await learn_workers(shard, dispatcher, on)
    tasks = [ask(dispatcher, on[number]) for number in range(2)]
    await until_idle()
    assert shard.batches[4:] == [[on[0]], [on[1]]]
    await answer_all(shard, tasks)


async def test_too_many_in_flight_are_refused_before_they_are_sent() -> None:
    shard = Shard()
    limit = ConcurrencyLimit(2)
    dispatcher = BatchDispatcher(shard.send, 1, limit)
    tasks = await call_all(dispatcher, "ab")
    assert limit.in_flight == 2
    with pytest.raises(LedgerUnavailable, match="in flight"):
        await ask(dispatcher, "c")
    for _ in range(2):
        await shard.answer()
        await until_idle()
    await asyncio.gather(*tasks)
    assert shard.batches == [["a"], ["b"]]
    assert limit.in_flight == 0


async def test_question_whose_deadline_passed_while_it_waited_is_never_sent() -> None:
    """The provider was told to ask again; what was never sent can't be posted behind its back."""
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(10))
    first = ask(dispatcher, "a")
    await until_idle()
    with pytest.raises(LedgerUnavailable, match="in time"):
        await ask(dispatcher, "b", within_seconds=0.01)
    await shard.answer()
    await first
    await until_idle()
    assert shard.batches == [["a"]]


@pytest.mark.parametrize("error", [LedgerUnavailable("gone"), RuntimeError("a defect")])
async def test_batch_that_fails_fails_everyone_in_it_and_nobody_after_it(error: Exception) -> None:
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(10))
    failed, later = await call_all(dispatcher, "ab")
    await shard.answer(error)
    with pytest.raises(LedgerUnavailable):
        await failed
    await until_idle()
    await shard.answer()
    await later
    assert answered_for(later) == "b"


async def test_question_that_would_be_answered_too_late_is_refused_early() -> None:
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(10))
    for seconds in (0, 0.1):  # by the first answer it knows the worker, by the second how slow that is
        slow = ask(dispatcher, "a")
        await until_idle()
        await asyncio.sleep(seconds)
        await shard.answer()
        await slow
    tasks = await call_all(dispatcher, "bc")
    with pytest.raises(LedgerUnavailable, match="too busy"):
        await ask(dispatcher, "d", within_seconds=0.02)
    for _ in range(2):
        await shard.answer()
        await until_idle()
    await asyncio.gather(*tasks)
    assert shard.batches[2:] == [["b"], ["c"]]


async def test_close_fails_what_waits_and_lets_the_batch_under_way_end() -> None:
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(10))
    under_way, waiting = await call_all(dispatcher, "ab")
    closing = asyncio.create_task(dispatcher.close())
    await until_idle()
    with pytest.raises(LedgerUnavailable, match="stopping"):
        await waiting
    assert not closing.done()
    await shard.answer()
    await closing
    await under_way
    assert answered_for(under_way) == "a"


async def test_close_lets_the_batch_of_a_lane_end_that_has_lost_its_last_shard() -> None:
    shard = Shard()
    dispatcher = BatchDispatcher(shard.send, 1, ConcurrencyLimit(10))
    first, under_way = await call_all(dispatcher, "ab")
    await shard.answer()  # tells which worker it is, so that the lane without a name has no shard any more
    await first
    await until_idle()
    assert shard.batches == [["a"], ["b"]]
    closing = asyncio.create_task(dispatcher.close())
    await until_idle()
    assert not closing.done()
    await shard.answer()
    await closing
    await under_way
    assert answered_for(under_way) == "b"


async def test_reply_that_lacks_answers_is_none() -> None:
    async def send(_shard: int, questions: Sequence[Question], _deadline: float) -> BatchAnswer:
        return BatchAnswer("one", [Balance("a", "EUR", 0, 0)] * (len(questions) - 1))

    with pytest.raises(LedgerUnavailable, match="0 answers to 1 question"):
        await asyncio.wait_for(ask(BatchDispatcher(send, 1, ConcurrencyLimit(10)), "a"), timeout=5)
