"""One gateway of two cells: what befalls the ledger of one is nothing to the callbacks of the other."""

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from prometheus_client import Counter, Gauge
from prometheus_client.registry import Collector
from structlog.testing import capture_logs

from gateway import cells
from gateway.app import CallbackRouter, create_app
from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.monitoring import READY_SECONDS_MAX
from gateway.players import PlayerCache
from gateway.providers.base import Win
from gateway.providers.registry import build
from shared.errors import LedgerUnavailable, SettingsError
from shared.http import Request
from shared.http.reader import RequestReader
from shared.money import Currencies
from shared.outcome import Balance
from shared.queries import FindPlayer, FindSession, PlayerRef
from shared.readiness import Readiness
from shared.settings import MEMORY, LedgerSettings, Settings
from shared.wire import Answer, Question
from simulator.client import http_bytes
from tests.support.system import INTEGRATIONS
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.integrations import assign

TABLES: dict[str, Any] = {
    "broker": {"url": "amqp://broker/main"},
    "cells": {"brand2": {"broker": {"url": "amqp://broker/brand2"}}},
    "integrations": {**INTEGRATIONS, "hpgames": {**INTEGRATIONS["hpgames"], "cell": "brand2"}},
}
IN_FLIGHT_MAX = 10
TX_ID = "0d53ba5b-1c5e-4a37-9a3a-0a4d7b0f3a11"
PROVIDERS = {name: build(name, table, Currencies()) for name, table in INTEGRATIONS.items()}


class CellLedger(LedgerClient):
    """The ledger of one cell, as a test wants it to be."""

    def __init__(self, cell: str) -> None:
        super().__init__(ConcurrencyLimit(IN_FLIGHT_MAX))
        self.limit.in_flight = len(cell)
        self.cell = cell
        self.holder: Balance | None = None
        self.is_away = False
        self.hangs = False
        self.refuses = False
        self.starts_slowly = False
        self.thawed = asyncio.Event()
        self.asked: list[Question] = []
        self.states: list[str] = []
        self.dropped = Counter("dropped", "Of a test", ["reason"], registry=None)
        self.shards = Gauge("shards", "Of a test", registry=None)

    async def __aenter__(self) -> Self:
        if self.starts_slowly:
            await self.thawed.wait()
        if self.refuses:
            raise SettingsError("[broker] url: refuses us")
        self.states.append("open")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.states.append("closed")

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        del deadline
        self.asked += questions
        if self.holder is not None:
            return [self.holder] * len(questions)
        return [LedgerUnavailable("no ledger in this test")] * len(questions)

    async def call_first(self, question: Question, deadline: float) -> Answer:
        self.asked.append(question)
        if self.hangs:
            async with asyncio.timeout_at(deadline + READY_SECONDS_MAX):
                await asyncio.Event().wait()
        if self.is_away:
            raise LedgerUnavailable("away")
        return None

    @property
    def counters(self) -> Sequence[Collector]:
        return self.dropped, self.shards


Two = tuple[CallbackRouter, dict[str, CellLedger]]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Two:
    """A gateway and the ledgers of its cells."""
    ledgers: dict[str, CellLedger] = {}

    def create(settings: Settings) -> LedgerClient:
        return ledgers.setdefault(settings.broker.cell, CellLedger(settings.broker.cell))

    monkeypatch.setattr(cells, "create_ledger_client", create)
    return create_app(Settings.model_validate(TABLES)), ledgers


def request_of(name: str) -> Request:
    reader = RequestReader(head_bytes_max=16_384, pipelined_requests_max=8)
    win = PROVIDERS[name].sample_request(Win(TX_ID, "player01", "session-1"))
    assert reader.feed(http_bytes(name, win), unanswered=0) is None
    (request,) = reader.requests
    return request


async def probe(ledger: CellLedger) -> str | None:
    return str(await ledger.call_first(FindPlayer(""), 1e9) or "") or None


async def test_overload_of_one_cell_turns_nobody_of_another_away(two: Two) -> None:
    app, ledgers = two
    assert list(ledgers) == ["main", "brand2"]
    ledgers["brand2"].limit.in_flight = IN_FLIGHT_MAX
    for _ in range(3):
        assert app.load_shedder.answer(request_of("hpgames")) is not None
        assert app.load_shedder.answer(request_of("klas")) is None
    await asyncio.sleep(0)
    ledgers["brand2"].limit.in_flight, ledgers["main"].limit.in_flight = 0, IN_FLIGHT_MAX
    assert app.load_shedder.answer(request_of("hpgames")) is None
    assert app.load_shedder.answer(request_of("klas")) is not None


async def test_callback_asks_the_ledger_of_its_own_cell(two: Two) -> None:
    app, ledgers = two
    async with (
        app.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        for name in ("klas", "hpgames"):
            win = PROVIDERS[name].sample_request(Win(TX_ID, "player01", "session-1"))
            path = f"/{name}/{win.path}"
            await client.post(path, params=win.query, content=win.body, headers=win.headers)
    names = {cell: {getattr(q, "integration", "") for q in ledgers[cell].asked} - {""} for cell in ledgers}
    assert names == {"main": {"klas"}, "brand2": {"hpgames"}}
    assert [ledger.states for ledger in ledgers.values()] == [["open", "closed"]] * 2


def test_question_about_a_player_says_for_which_integration() -> None:
    """In the books of another cell, which old settings may lead to, the same id is another person's."""
    table = {name: value for name, value in INTEGRATIONS["igamingace"].items() if name != "currency"}
    deposits, klas = build("brand2-igamingace", table, Currencies()), PROVIDERS["klas"]
    win = deposits.sample_request(Win(TX_ID, "player01", "session-1"))
    assert deposits.lookup(deposits.parse(win)) == FindPlayer("player01", "brand2-igamingace")
    body = b'{"request_id": "1", "timestamp": 1, "session_id": "s", "player_id": "player01"}'
    balance = klas.sample_request(Win(TX_ID, "player01", "s"))._replace(path="balance", body=body)
    assert klas.normalize(klas.parse(balance), None) == FindPlayer("player01", "klas")


async def test_session_of_one_cell_is_not_remembered_for_another(two: Two) -> None:
    _, ledgers = two
    lookup, deadline = FindSession("gpas", "s"), asyncio.get_running_loop().time() + 10
    anna = Balance("anna", "EUR", 1, 2)

    ledgers["main"].holder = anna
    main, brand2 = (PlayerCache(ledgers[cell]) for cell in ("main", "brand2"))
    assert await main.find(lookup, deadline, b"") == PlayerRef("anna", "EUR")
    with pytest.raises(LedgerUnavailable):
        await brand2.find(lookup, deadline, b"")


async def test_gateway_is_ready_while_one_cell_is_and_says_which_is_not(two: Two) -> None:
    app, ledgers = two
    ledgers["brand2"].is_away = True
    transport = httpx.ASGITransport(app.operations)
    async with httpx.AsyncClient(transport=transport, base_url="http://operations") as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "ready", "cells": {"main": "ready", "brand2": "away"}},
        )


async def test_gateway_is_not_ready_when_no_cell_is(two: Two) -> None:
    app, ledgers = two
    for ledger in ledgers.values():
        ledger.is_away = True
    transport = httpx.ASGITransport(app.operations)
    async with httpx.AsyncClient(transport=transport, base_url="http://operations") as client:
        unready = await client.get("/readyz")
        assert (unready.status_code, unready.json()["cells"]) == (503, {"main": "away", "brand2": "away"})


async def test_cell_that_does_not_answer_is_asked_once_and_not_waited_for(two: Two) -> None:
    _, ledgers = two
    ledgers["brand2"].hangs = True
    readiness = Readiness({name: partial(probe, ledger) for name, ledger in ledgers.items()})
    for _ in range(2):
        assert await readiness.check() == {"main": None, "brand2": "no answer in time"}
    assert (len(ledgers["main"].asked), len(ledgers["brand2"].asked)) == (2, 1)
    readiness.stop()


async def test_metrics_say_of_which_cell_and_keep_their_names(two: Two) -> None:
    app, ledgers = two
    ledgers["main"].dropped.labels("unsigned").inc(3)
    transport = httpx.ASGITransport(app.operations)
    async with httpx.AsyncClient(transport=transport, base_url="http://operations") as client:
        exposition = (await client.get("/metrics")).text
    assert 'dropped_total{cell="main",reason="unsigned"} 3.0' in exposition
    assert "# TYPE shards gauge\n" in exposition
    assert 'shards{cell="brand2"} 0.0' in exposition
    assert "credits_gateway_in_flight 10.0" in exposition
    assert 'credits_gateway_cell_in_flight{cell="brand2"} 6.0' in exposition


async def test_cell_that_starts_slowly_keeps_no_other_from_serving(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    app, ledgers = two
    monkeypatch.setattr(cells, "START_SECONDS_MAX", 0.01)
    ledgers["brand2"].starts_slowly = True
    async with app.lifespan_context(app):
        assert (ledgers["main"].states, ledgers["brand2"].states) == (["open"], [])
    assert (ledgers["main"].states, ledgers["brand2"].states) == (["open", "closed"], [])


async def test_broker_that_refuses_a_cell_late_is_asked_again(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    app, ledgers = two
    monkeypatch.setattr(cells, "START_SECONDS_MAX", 0.01)
    monkeypatch.setattr(cells, "START_RETRY_SECONDS", 0.01)
    brand2 = ledgers["brand2"]
    brand2.starts_slowly = brand2.refuses = True
    with capture_logs() as logged:
        async with app.lifespan_context(app):
            brand2.thawed.set()
            await asyncio.sleep(0.1)
            assert brand2.states == []
            brand2.refuses = False
            await asyncio.sleep(0.1)
            assert brand2.states == ["open"]
    assert brand2.states == ["open", "closed"]
    (reason,) = (line["reason"] for line in logged if line["event"] == "cell is not served")
    assert reason == "[cells.brand2.broker] url: refuses us"


async def test_broker_that_refuses_one_cell_stops_the_start_and_is_named(two: Two) -> None:
    app, ledgers = two
    ledgers["brand2"].refuses = True
    with pytest.raises(SettingsError, match=r"^\[cells\.brand2\.broker\] url: refuses us"):
        async with app.lifespan_context(app):
            raise AssertionError("it serves")
    assert ledgers["main"].states == ["open", "closed"]


@pytest.mark.parametrize("cell", ["main", "brand2"])
async def test_embedded_gateway_says_which_cells_tables_are_old(cell: str, tmp_path: Path) -> None:
    urls = {name: f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in ("main", "brand2")}
    for name in {"main", "brand2"} - {cell}:
        engine = create_engine(LedgerSettings(database_url=urls[name]))
        await migrate(engine)
        await assign({name: engine}, {})
        await engine.dispose()
    brand2 = {"broker": {"url": MEMORY}, "ledger": {"database_url": urls["brand2"]}}
    tables = {
        **TABLES,
        "broker": {"url": MEMORY},
        "ledger": {"database_url": urls["main"]},
        "cells": {"brand2": brand2},
    }
    app = create_app(Settings.model_validate(tables))
    with pytest.raises(SettingsError, match=f"^cell {cell}: the database's tables are not this version's"):
        async with app.lifespan_context(app):
            raise AssertionError("it serves")
