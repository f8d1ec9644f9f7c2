"""Time slices of large requests: all of them together have one in each turn of the event loop."""

import asyncio
import json
from collections.abc import Sequence
from uuid import uuid4

import pytest

from gateway.callback import CallbackHandler
from gateway.load_shedding import ShedLog
from gateway.metrics import GatewayMetrics
from gateway.players import PlayerCache
from gateway.providers.base import Callback, Win
from gateway.providers.registry import build
from gateway.time_slices import SHORT_BYTES_MAX, SliceScheduler, TimeSlices, is_short
from shared.money import Currencies
from shared.outcome import Outcome, OutcomeCode, Receipt
from shared.wire import Answer, Question
from tests.support.system import INTEGRATIONS
from tests.unit.test_overload import BusyLedger


class PayingLedger(BusyLedger):
    """A ledger that pays all at once."""

    def __init__(self) -> None:
        super().__init__(room_for=1)
        self.deadline = 0.0

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer]:
        self.deadline = deadline
        return [Outcome(OutcomeCode.POSTED, Receipt("transfer-1", "EUR", 1050, 0, 1050, 0)) for _ in questions]


async def test_many_large_requests_have_one_turn_together_each_time_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.time_slices.SLICE_SECONDS", 0)
    scheduler, had = SliceScheduler(), list[int]()

    async def work(number: int) -> None:
        slices = TimeSlices(scheduler)
        for _ in range(3):
            await slices.pause_if_due()
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
    monkeypatch.setattr("gateway.time_slices.SLICE_SECONDS", 0)
    scheduler, had = SliceScheduler(), list[str]()
    signed, old, new = (TimeSlices(scheduler) for _ in range(3))
    for slices in (signed, old):
        await slices.pause_if_due()
    signed.is_signed = True

    async def work(name: str, slices: TimeSlices) -> None:
        await slices.pause_if_due()
        had.append(name)

    names = {old: "old", new: "new", signed: "signed"}
    await asyncio.gather(*(work(name, slices) for slices, name in names.items()))
    assert had == ["signed", "new", "old"]


async def test_who_is_signed_and_goes_on_without_end_keeps_nobody_from_a_turn() -> None:
    """As one captured request can, on some connections: a new one's first bulk had waited for 69 s."""
    scheduler = SliceScheduler()

    async def flood() -> None:
        while True:
            await scheduler.next(-1)

    floods = [asyncio.create_task(flood()) for _ in range(3)]
    await asyncio.wait_for(scheduler.next(), 5)
    assert not any(task.done() for task in floods)
    for task in floods:
        task.cancel()


async def test_window_of_a_large_request_begins_before_its_first_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def wait_for_long(_slices: TimeSlices) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(TimeSlices, "pause_if_due", wait_for_long)
    ledger, metrics = PayingLedger(), GatewayMetrics(lambda: 0)
    provider = build("klas", INTEGRATIONS["klas"], Currencies())
    integration = CallbackHandler(provider, ledger, PlayerCache(ledger), metrics, ShedLog(metrics))
    large = provider.sample_request(Win("1", "anna", "session-1", round_id="r" * SHORT_BYTES_MAX))
    came = asyncio.get_running_loop().time()
    await integration.handle(large, TimeSlices(integration.scheduler))
    assert 0 < ledger.deadline < came + provider.settings.reply_within_seconds + 0.05


async def test_who_no_longer_waits_keeps_nobody_from_a_turn() -> None:
    scheduler = SliceScheduler()
    gone, waits = (asyncio.create_task(scheduler.next()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait_for(waits, 5)


async def test_turn_that_is_not_over_is_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.time_slices.SLICE_SECONDS", 60)
    slices = TimeSlices(SliceScheduler())
    await slices.pause_if_due()
    task = asyncio.create_task(slices.pause_if_due())
    await asyncio.sleep(0)
    assert task.done()


async def test_trusted_sender_has_the_first_turn_before_others_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.time_slices.SLICE_SECONDS", 0)
    scheduler, had = SliceScheduler(), list[str]()

    async def work(name: str, slices: TimeSlices) -> None:
        for _ in range(2):
            await slices.pause_if_due()
            had.append(name)

    trusted = TimeSlices(scheduler, is_sender_trusted=True)
    await asyncio.gather(work("other", TimeSlices(scheduler)), work("trusted", trusted))
    assert had == ["trusted", "other", "trusted", "other"]


async def test_signed_bulk_is_answered_while_others_keep_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its signature shows in its first turn: in a second one it would stand behind all newcomers."""
    monkeypatch.setattr("gateway.time_slices.SLICE_SECONDS", 0)
    ledger = PayingLedger()
    provider = build("hpgames", INTEGRATIONS["hpgames"], Currencies())
    metrics = GatewayMetrics(lambda: 0)
    integration = CallbackHandler(provider, ledger, PlayerCache(ledger), metrics, ShedLog(metrics))
    wins = [provider.sample_request(Win(str(uuid4()), "anna", "session-1")).body for _ in range(20)]
    body = b'{"creditRequests":[' + b",".join(wins) + b"]}"
    bulk = Callback("bulkCredit", body, {"content-type": "application/json"})
    honest = asyncio.create_task(integration.handle(bulk, TimeSlices(integration.scheduler)))
    others = set[asyncio.Task[None]]()
    for _ in range(2_000):
        others |= {asyncio.create_task(TimeSlices(integration.scheduler).pause_if_due()) for _ in range(2)}
        await asyncio.sleep(0)
        if honest.done():
            break
    for other in others:
        other.cancel()
    assert honest.done()
    assert [each["errorCode"] for each in json.loads((await honest).body)["creditResponses"]] == [0] * 20


def test_bodies_with_many_bytes_are_not_short() -> None:
    assert is_short(b"x" * 2_048)
    assert not is_short(b"x" * 2_049)
