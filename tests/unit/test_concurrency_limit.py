"""When callers are too many: a crowd may come and wait, but not stay; and an outage is no crowd."""

import asyncio

import pytest

from gateway.ledger_client.concurrency import (
    BURST_SECONDS,
    CALLERS_MAX,
    COOLDOWN_SECONDS,
    STALL_SECONDS,
    ConcurrencyLimit,
)
from gateway.ledger_client.dispatcher import BatchDispatcher
from shared.errors import LedgerUnavailable
from shared.queries import FindPlayer
from tests.support.dispatchers import NEVER, Shard, answer_all, ask, call_all, until_idle

IN_FLIGHT_MAX = 10 * CALLERS_MAX
STEP_SECONDS = 0.1


def crowded(limit: ConcurrencyLimit, since: float, until: float) -> list[bool]:
    """Tell of each step from one time to another, in which answers come, whether there are too many."""
    found = []
    for step in range(round((until - since) / STEP_SECONDS)):
        now = since + step * STEP_SECONDS
        limit.record_reply(now)
        found.append(limit.is_exceeded(CALLERS_MAX, now))
    return found


def is_exceeded_now(limit: ConcurrencyLimit, more: int = 0) -> bool:
    return limit.is_exceeded(more, asyncio.get_running_loop().time())


def test_as_many_as_make_good_batches_may_stay() -> None:
    limit = ConcurrencyLimit(IN_FLIGHT_MAX)
    for now in range(10):
        limit.record_reply(now)
        assert not limit.is_exceeded(CALLERS_MAX - 1, now)


def test_a_crowd_may_wait_for_a_moment_and_then_nobody_beyond_the_bound() -> None:
    limit = ConcurrencyLimit(IN_FLIGHT_MAX)
    steps = round(BURST_SECONDS / STEP_SECONDS)
    assert crowded(limit, 0, 3 * BURST_SECONDS) == [False] * steps + [True] * (2 * steps)
    assert not limit.is_exceeded(CALLERS_MAX - 1, 3 * BURST_SECONDS)


def test_who_waits_counts_as_much_as_who_is_about_to() -> None:
    limit = ConcurrencyLimit(IN_FLIGHT_MAX)
    crowded(limit, 0, 2 * BURST_SECONDS)
    limit.callers = CALLERS_MAX - 1
    assert limit.is_exceeded(1, 2 * BURST_SECONDS)
    assert not limit.is_exceeded(0, 2 * BURST_SECONDS)


def test_a_gap_in_a_crowd_ends_it_only_if_it_lasts() -> None:
    """A batch that is answered makes room for a moment: what fills it is the same crowd."""
    limit, now = ConcurrencyLimit(IN_FLIGHT_MAX), 2 * BURST_SECONDS
    crowded(limit, 0, now)
    now += COOLDOWN_SECONDS / 2
    limit.record_reply(now)
    assert limit.is_exceeded(CALLERS_MAX, now)
    now += COOLDOWN_SECONDS + STEP_SECONDS
    limit.record_reply(now)
    assert not limit.is_exceeded(CALLERS_MAX, now)


def test_while_nothing_is_answered_nobody_is_too_many() -> None:
    """Who waits in an outage is answered when it is over, if that is in time."""
    limit = ConcurrencyLimit(IN_FLIGHT_MAX)
    assert not any(limit.is_exceeded(CALLERS_MAX, now) for now in range(5))
    crowded(limit, 5, 7)
    assert limit.is_exceeded(CALLERS_MAX, 7)
    assert not limit.is_exceeded(CALLERS_MAX, 7 + STALL_SECONDS)
    limit.record_reply(9)
    assert not limit.is_exceeded(CALLERS_MAX, 9)  # it was calm meanwhile, so this crowd is new


def test_an_outage_leaves_a_crowd_that_is_old_when_answers_come_again() -> None:
    limit, now = ConcurrencyLimit(IN_FLIGHT_MAX), 0.0
    limit.record_reply(now)
    while now < 3 * STALL_SECONDS:
        now += STEP_SECONDS
        limit.is_exceeded(CALLERS_MAX, now)
    limit.record_reply(now)
    assert limit.is_exceeded(CALLERS_MAX, now)


async def test_a_bulk_is_one_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.ledger_client.concurrency.BURST_SECONDS", 0.0)
    shard = Shard()
    limit = ConcurrencyLimit(IN_FLIGHT_MAX)
    dispatcher = BatchDispatcher(shard.send, 1, limit)
    await answer_all(shard, await call_all(dispatcher, "a"))
    assert is_exceeded_now(limit, CALLERS_MAX)
    deadline = asyncio.get_running_loop().time() + NEVER
    bulk = asyncio.create_task(dispatcher.call_all([FindPlayer("a")] * CALLERS_MAX, deadline))
    await until_idle()
    assert is_exceeded_now(limit, CALLERS_MAX - 1)
    assert not is_exceeded_now(limit, CALLERS_MAX - 2)
    bulk.cancel()
    await until_idle()
    assert not is_exceeded_now(limit, CALLERS_MAX - 1)


async def test_a_call_that_fails_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """In an outage calls end, too, each when its provider's window does."""
    monkeypatch.setattr("gateway.ledger_client.concurrency.BURST_SECONDS", 0.0)
    shard = Shard()
    limit = ConcurrencyLimit(IN_FLIGHT_MAX)
    dispatcher = BatchDispatcher(shard.send, 1, limit)
    with pytest.raises(LedgerUnavailable, match="in time"):
        await ask(dispatcher, "a", within_seconds=0.02)
    assert not is_exceeded_now(limit, CALLERS_MAX)
    await shard.answer()


async def test_overload_begins_at_the_bound_on_credits_at_once() -> None:
    shard = Shard()
    limit = ConcurrencyLimit(2)
    dispatcher = BatchDispatcher(shard.send, 1, limit)
    tasks = await call_all(dispatcher, "ab")
    assert is_exceeded_now(limit)
    await answer_all(shard, tasks)
    assert not is_exceeded_now(limit, 1)
    assert is_exceeded_now(limit, 2)
