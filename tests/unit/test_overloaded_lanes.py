"""When lanes are overloaded: many wait, and answers are slow; or as many wait as may."""

import asyncio

import pytest

from gateway.ledger_client.lanes import OVERLOADED_CALLS_MIN, OVERLOADED_SECONDS, Lanes
from shared.errors import LedgerUnavailable
from shared.wire import FindPlayer
from tests.lanes import NEVER, Shard, answer_all, ask, ask_all, until_idle


async def test_slow_answers_to_many_are_overload_and_to_few_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many are in flight for a moment when all come at once, and few are slow where commits are."""
    monkeypatch.setattr("gateway.ledger_client.lanes.OVERLOADED_SECONDS", 0.01)
    shard = Shard()
    lanes = Lanes(shard.send, 1, 10 * OVERLOADED_CALLS_MIN)
    assert not lanes.is_overloaded(OVERLOADED_CALLS_MIN)
    slow = ask(lanes, "slow")
    await until_idle()
    await asyncio.sleep(0.02)
    await shard.answer()
    await slow
    bulk = asyncio.create_task(lanes.ask_all([FindPlayer("a")] * OVERLOADED_CALLS_MIN, deadline=NEVER))
    await until_idle()
    assert not lanes.is_overloaded()
    bulk.cancel()
    await until_idle()
    assert not lanes.is_overloaded(OVERLOADED_CALLS_MIN - 1)
    assert lanes.is_overloaded(OVERLOADED_CALLS_MIN)
    quick = ask(lanes, "quick")
    await until_idle()
    await answer_all(shard, [quick])
    assert not lanes.is_overloaded(OVERLOADED_CALLS_MIN)


async def test_who_has_waited_before_asking_has_waited() -> None:
    lanes = Lanes(Shard().send, 1, 10 * OVERLOADED_CALLS_MIN)
    assert lanes.is_overloaded(OVERLOADED_CALLS_MIN, 2 * OVERLOADED_SECONDS)
    assert not lanes.is_overloaded(OVERLOADED_CALLS_MIN - 1, 2 * OVERLOADED_SECONDS)


async def test_overload_begins_at_the_bound_however_fast_the_answers_are() -> None:
    shard = Shard()
    lanes = Lanes(shard.send, 1, 2)
    tasks = await ask_all(lanes, "ab")
    assert lanes.is_overloaded()
    await answer_all(shard, tasks)
    assert not lanes.is_overloaded(1)
    assert lanes.is_overloaded(2)


async def test_what_is_not_answered_at_all_is_an_outage_and_no_overload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who waits then is answered when it is over, if that is in time."""
    monkeypatch.setattr("gateway.ledger_client.lanes.OVERLOADED_SECONDS", 0.01)
    shard = Shard()
    lanes = Lanes(shard.send, 1, 10 * OVERLOADED_CALLS_MIN)
    with pytest.raises(LedgerUnavailable, match="in time"):
        await ask(lanes, "a", within_seconds=0.02)
    assert not lanes.is_overloaded(OVERLOADED_CALLS_MIN)
    await shard.answer()
