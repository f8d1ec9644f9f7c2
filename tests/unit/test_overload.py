"""At the door of an overloaded ledger: each provider's own 'ask again', counted, and logged once a second."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import ASGIApp
from structlog.testing import capture_logs

from gateway.app import CallbackRouter, create_app
from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.providers.base import Callback, Provider, Win
from gateway.providers.registry import build
from shared.errors import LedgerUnavailable
from shared.http import Request
from shared.http.reader import RequestReader
from shared.money import Currencies
from shared.settings import Settings
from shared.wire import Answer, Question
from simulator.client import Response, http_bytes, read_response
from simulator.dialects import read_reply
from simulator.history import ReplyMeaning
from tests.support.http_wire import connect, turns
from tests.support.system import INTEGRATIONS

PROVIDERS: dict[str, Provider[Any, Any]] = {
    name: build(name, table, Currencies()) for name, table in INTEGRATIONS.items()
}


class BusyLedger(LedgerClient):
    """A ledger that has room for few calls, or none, and must not be called."""

    def __init__(self, room_for: int = 0) -> None:
        super().__init__(ConcurrencyLimit(room_for))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        raise AssertionError(f"{questions} was asked, by {deadline}")


class UnreachableLedger(BusyLedger):
    """A ledger that may be called, and is away."""

    called = 0

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        del deadline
        self.called += 1
        return [LedgerUnavailable("no ledger in this test")] * len(questions)


def gateway(room_for: int = 0) -> CallbackRouter:
    return create_app(Settings.model_validate({"integrations": INTEGRATIONS}), BusyLedger(room_for))


def win(name: str, tx_id: str) -> Callback:
    return PROVIDERS[name].sample_request(Win(tx_id, "player01", "session-1"))


def request_of(name: str, callback: Callback) -> Request:
    """Return a provider's request as it is parsed."""
    reader = RequestReader(head_bytes_max=16_384, pipelined_requests_max=8)
    assert reader.feed(http_bytes(name, callback), unanswered=0) is None
    (request,) = reader.requests
    return request


async def read(response: bytes | None) -> Response:
    reader = asyncio.StreamReader()
    reader.feed_data(response or b"")
    reader.feed_eof()
    return await read_response(reader)


async def ask(app: ASGIApp, method: str, path: str, callback: Callback) -> Response:
    """Return the reply to what takes no shortcut."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": callback.body}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in callback.headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": headers}
    await app({**scope, "query_string": b""}, receive, send)
    start, body = sent
    told_headers = {name.decode().lower(): value.decode() for name, value in start["headers"]}
    return Response(start["status"], body["body"], told_headers)


async def counted(app: CallbackRouter, metric: str, **labels: str) -> float:
    """Return what a counter says."""
    exposition = (await ask(app.operations, "GET", "/metrics", Callback("", b""))).body.decode()
    (found,) = [
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == metric and sample.labels == labels
    ]
    return float(found)


@pytest.mark.parametrize("name", INTEGRATIONS)
async def test_each_provider_is_told_in_its_own_words_to_ask_again(name: str) -> None:
    app, tx_ids = gateway(), [f"00000000-0000-4000-8000-00000000000{n}" for n in range(3)]
    for tx_id in tx_ids:
        callback = win(name, tx_id)
        response = await read(app.load_shedder.answer(request_of(name, callback)))
        assert read_reply(PROVIDERS[name], "EUR", response) == (ReplyMeaning.ASK_AGAIN, None)
        usual = await ask(app, "POST", f"/{name}/{callback.path}", callback)
        assert (response.status, response.body) == (usual.status, usual.body)
        assert response.headers == usual.headers
    assert await counted(app, "credits_gateway_outcomes_total", integration=name, result="unavailable") == 6
    labels = {"integration": name, "path": callback.path, "status": str(response.status)}
    assert await counted(app, "credits_gateway_requests_total", **labels) == 6


async def test_each_item_of_a_bulk_is_told_to_ask_again() -> None:
    app, tx_ids = gateway(), [f"00000000-0000-4000-8000-00000000000{n}" for n in range(3)]
    items = [msgspec.Raw(win("hpgames", tx_id).body) for tx_id in tx_ids]
    body = msgspec.json.encode({"creditRequests": items})
    bulk = Callback("bulkCredit", body, {"content-type": "application/json"})
    response = await read(app.load_shedder.answer(request_of("hpgames", bulk)))
    replies = response.json["creditResponses"]
    assert [(reply["errorCode"], reply["transactionId"]) for reply in replies] == [(1008, i) for i in tx_ids]
    assert await counted(app, "credits_gateway_outcomes_total", integration="hpgames", result="unavailable") == 3


async def test_what_is_read_in_one_turn_counts_before_it_is_asked() -> None:
    """The ledger hears of it only when all that has come is read."""
    app = gateway(room_for=2)
    requests = [request_of("klas", win("klas", str(number))) for number in range(4)]
    assert [app.load_shedder.answer(request) is None for request in requests] == [True, True, False, False]
    await asyncio.sleep(0)
    assert app.load_shedder.answer(requests[3]) is None


@pytest.mark.parametrize("pieces", [1, 2])
async def test_callback_is_decided_on_once(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the door if it came whole, and else by its handler."""
    ledger, decided = UnreachableLedger(room_for=1), list[bool]()
    app = create_app(Settings.model_validate({"integrations": INTEGRATIONS}), ledger)
    is_exceeded = ledger.limit.is_exceeded

    def decide(more: int, now: float) -> bool:
        decided.append(is_exceeded(more, now))
        return decided[-1]

    monkeypatch.setattr(ledger.limit, "is_exceeded", decide)
    wire, receive = connect(app, app.load_shedder)
    request = http_bytes("klas", win("klas", "1"))
    end = len(request) if pieces == 1 else len(request) - 1
    receive(request[:end])
    await turns()
    receive(request[end:])
    await turns()
    assert decided == [False]
    assert ledger.called == 1
    assert len(wire.packets) == 1


async def test_copies_that_are_read_in_one_turn_count_once() -> None:
    app = gateway(room_for=2)
    copy, other = (request_of("klas", win("klas", tx_id)) for tx_id in "12")
    assert [app.load_shedder.answer(copy) for _ in range(4)] == [None] * 4
    assert app.load_shedder.answer(other) is None


async def test_commas_count_where_items_stand_between_them() -> None:
    """A long list in a field that nobody reads makes no bulk request of a win."""
    app, commas = gateway(), b'{"jackpot_wins":[' + b",".join([b"1"] * 100) + b"]}"
    assert app.load_shedder.answer(request_of("klas", Callback("credit", commas, {}))) is not None
    assert app.load_shedder.answer(request_of("hpgames", Callback("credit", commas, {}))) is not None


async def test_what_is_no_callback_or_too_large_goes_the_usual_way() -> None:
    app, large = gateway(), Callback("credit", b" " * 65_537, {})
    assert app.load_shedder.answer(request_of("klas", large)) is None
    bulk = Callback("bulkCredit", b'{"creditRequests":[' + b",".join([b"1"] * 100) + b"]}", {})
    assert app.load_shedder.answer(request_of("hpgames", bulk)) is None
    assert app.load_shedder.answer(request_of("klas", Callback("other", b"{}", {}))) is None
    assert app.load_shedder.answer(Request(b"GET", b"/klas/credit", [], keep_alive=True)) is None


async def test_log_has_a_line_a_second_for_each_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.log_limit.FLUSH_SECONDS", 0.01)
    app = gateway()
    with capture_logs() as logged:
        for name, number in {"klas": 3, "gpas": 1}.items():
            for _ in range(number):
                app.load_shedder.answer(request_of(name, win(name, "1")))
        await asyncio.sleep(0.05)
        app.load_shedder.answer(request_of("gpas", win("gpas", "1")))
        await asyncio.sleep(0.05)
    assert [(line["integration"], line["callbacks"]) for line in logged] == [
        ("klas", 3),
        ("gpas", 1),
        ("gpas", 1),
    ]


async def test_log_tells_of_everyone_when_the_gateway_stops() -> None:
    app = gateway()
    with capture_logs() as logged:
        async with app.lifespan_context(app):
            app.load_shedder.answer(request_of("klas", win("klas", "1")))
    assert [(line["integration"], line["callbacks"]) for line in logged] == [("klas", 1)]
