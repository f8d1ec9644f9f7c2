"""Turns of large requests: one of all of them, each time the loop comes round."""

import asyncio

import pytest

from gateway.pace import Pace, Turns, is_short


async def test_many_large_requests_have_one_turn_together_each_time_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.pace.TURN_SECONDS", 0)
    turns, had = Turns(), list[int]()

    async def work(number: int) -> None:
        pace = Pace(turns)
        for _ in range(3):
            await pace.rest()
            had.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(10)]
    most = 0
    while not all(task.done() for task in tasks):
        before = len(had)
        await asyncio.sleep(0)
        most = max(most, len(had) - before)
    assert most == 1
    assert had == [*range(10)] * 3


async def test_who_is_signed_goes_first_then_who_had_fewer_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.pace.TURN_SECONDS", 0)
    turns, had = Turns(), list[str]()
    signed, old, new = (Pace(turns) for _ in range(3))
    for pace in (signed, old):
        await pace.rest()
    signed.is_signed = True

    async def work(name: str, pace: Pace) -> None:
        await pace.rest()
        had.append(name)

    names = {old: "old", new: "new", signed: "signed"}
    await asyncio.gather(*(work(name, pace) for pace, name in names.items()))
    assert had == ["signed", "new", "old"]


async def test_who_no_longer_waits_keeps_nobody_from_a_turn() -> None:
    turns = Turns()
    gone, waits = (asyncio.create_task(turns.next()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(waits, 5)


async def test_turn_that_is_not_over_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.pace.TURN_SECONDS", 60)
    pace = Pace(Turns())
    await pace.rest()
    task = asyncio.create_task(pace.rest())
    await asyncio.sleep(0)
    assert task.done()


def test_bodies_with_many_bytes_are_not_short() -> None:
    assert is_short(b"x" * 2_048)
    assert not is_short(b"x" * 2_049)
