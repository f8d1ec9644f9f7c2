"""The operations port: one question to the ledger for all who ask, and never one too many for it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import httpx
import pytest

from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.dispatcher import BATCHES_IN_FLIGHT_MAX, BatchDispatcher
from gateway.load_shedding import ShedLog
from gateway.metrics import GatewayMetrics
from gateway.monitoring import (
    READY_SECONDS_MAX,
    REQUESTS_PER_SECOND,
    WAIT_SECONDS_MAX,
    MonitoringApp,
    RateLimit,
)
from shared.cached_call import CachedCall
from shared.cells import MAIN
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindPlayer
from shared.wire import Answer, Question
from tests.support.dispatchers import Shard, answer_all, ask, until_idle

POLLERS = 50
IN_FLIGHT_MAX = 2 * BATCHES_IN_FLIGHT_MAX


class ProbedLedger(LedgerClient):
    """A ledger that is overloaded, and answers what goes first when a test says so."""

    def __init__(self) -> None:
        super().__init__(ConcurrencyLimit(0))
        self.asked: list[Question] = []
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        raise AssertionError(f"{questions} were asked among others, by {deadline}")

    async def call_first(self, question: Question, deadline: float) -> Answer:
        assert deadline <= asyncio.get_running_loop().time() + READY_SECONDS_MAX
        self.asked.append(question)
        return await self.answer


def operations_of(ledger: LedgerClient) -> MonitoringApp:
    metrics = GatewayMetrics(lambda: ledger.limit.in_flight)
    return MonitoringApp({MAIN: ledger}, metrics, ShedLog(metrics))


def client_of(operations: MonitoringApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(operations), base_url="http://operations")


async def readiness(client: httpx.AsyncClient) -> tuple[int, Any]:
    answer = await client.get("/readyz")
    return answer.status_code, answer.json()


async def test_all_who_ask_for_readiness_share_one_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.monitoring.READINESS_TTL_SECONDS", 60)
    ledger = ProbedLedger()
    async with client_of(operations_of(ledger)) as client, asyncio.TaskGroup() as group:
        early = [group.create_task(readiness(client)) for _ in range(POLLERS)]
        await until_idle()
        assert ledger.asked == [FindPlayer("")]
        ledger.answer.set_result(None)
        await asyncio.gather(*early)
        late = [await readiness(client) for _ in range(POLLERS)]
        assert [task.result() for task in early] + late == [(200, {"status": "ready"})] * (2 * POLLERS)
        assert len(ledger.asked) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (LedgerUnavailable("no connection to the broker"), "no connection to the broker"),
        (Outcome(OutcomeCode.UNAVAILABLE), "unavailable"),
    ],
)
async def test_ledger_that_does_not_answer_is_not_ready(fault: LedgerUnavailable | Outcome, reason: str) -> None:
    ledger = ProbedLedger()
    if isinstance(fault, Outcome):
        ledger.answer.set_result(fault)
    else:
        ledger.answer.set_exception(fault)
    async with client_of(operations_of(ledger)) as client:
        assert await readiness(client) == (503, {"status": "unavailable", "reason": reason})


async def test_gateway_that_stops_is_not_ready_and_asks_nothing() -> None:
    ledger = ProbedLedger()
    operations = operations_of(ledger)
    operations.stop()
    async with client_of(operations) as client:
        assert await readiness(client) == (
            503,
            {"status": "unavailable", "reason": "the gateway is stopping"},
        )
        assert (await client.get("/healthz")).json() == {"status": "up"}
    assert ledger.asked == []


async def test_answer_stands_for_its_time_and_is_looked_for_anew_after() -> None:
    asked = 0

    async def count() -> int:
        nonlocal asked
        asked += 1
        return asked

    standing, fleeting = CachedCall(count, seconds=60), CachedCall(count, seconds=0)
    assert [await standing.get() for _ in range(3)] == [1, 1, 1]
    assert [await fleeting.get() for _ in range(3)] == [2, 3, 4]


async def test_fault_is_told_to_all_who_wait_and_does_not_stand_for_ever() -> None:
    faults = [LedgerUnavailable("cut off"), None]

    async def fail_once() -> str:
        fault = faults.pop(0)
        if fault is not None:
            raise fault
        return "answer"

    remembered = CachedCall(fail_once, seconds=0)
    first = await asyncio.gather(*(remembered.get() for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in first] == ["cut off"] * 3
    assert await remembered.get() == "answer"


async def test_many_who_ask_are_answered_in_turn_and_after_a_bounded_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("gateway.monitoring.asyncio.sleep", sleep)
    rate_limit = RateLimit()
    for _ in range(10_000):
        await rate_limit.wait()
    assert 0 < slept[0] <= 1 / REQUESTS_PER_SECOND
    assert slept[-1] == pytest.approx(WAIT_SECONDS_MAX)
    assert max(slept) <= WAIT_SECONDS_MAX


async def test_who_hangs_up_takes_the_answer_from_nobody() -> None:
    ledger = ProbedLedger()
    async with client_of(operations_of(ledger)) as client:
        gone, stays = (asyncio.create_task(readiness(client)) for _ in range(2))
        await until_idle()
        gone.cancel()
        await until_idle()
        ledger.answer.set_result(None)
        assert await stays == (200, {"status": "ready"})


async def test_what_goes_first_overtakes_all_that_wait_and_is_counted_nowhere() -> None:
    shard = Shard()
    limit = ConcurrencyLimit(IN_FLIGHT_MAX)
    dispatcher = BatchDispatcher(shard.send, 1, limit)
    deadline = asyncio.get_running_loop().time() + 60
    tasks = [ask(dispatcher, "a")]
    await until_idle()
    tasks += [ask(dispatcher, f"b{number}") for number in range(IN_FLIGHT_MAX - 1)]
    await until_idle()
    assert limit.is_exceeded(0, asyncio.get_running_loop().time())
    first = asyncio.create_task(dispatcher.call_first(FindPlayer("first"), deadline))
    await until_idle()
    assert limit.in_flight == IN_FLIGHT_MAX
    await answer_all(shard, [*tasks, first])
    assert shard.batches[1][0] == "first"
    assert len(shard.batches[1]) == IN_FLIGHT_MAX
    assert limit.in_flight == 0


async def test_what_goes_first_has_an_end() -> None:
    dispatcher = BatchDispatcher(Shard().send, 1, ConcurrencyLimit(IN_FLIGHT_MAX))
    async with asyncio.timeout(10):
        with pytest.raises(LedgerUnavailable, match="no answer in time"):
            await dispatcher.call_first(FindPlayer("first"), asyncio.get_running_loop().time() + 0.01)
