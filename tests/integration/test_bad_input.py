"""What comes in by the real HTTP port and is no credit: the provider's own error, no 500, nothing moved."""

import json
from collections.abc import AsyncIterator

import pytest

from gateway.providers.base import Callback
from simulator.client import Response, connect, http_bytes, read_response, send_all
from simulator.dialects import dialect_of, read_reply
from simulator.dialects.values import Facts
from simulator.history import ReplyMeaning
from tests.support.servers import Servers
from tests.support.system import INTEGRATIONS, SESSION, System, running_system

pytestmark = pytest.mark.any_server

PLAYER = "player01"
FACTS = Facts(PLAYER, SESSION + PLAYER)
GATEWAY_BODY_BYTES_MAX = 65_536

BAD_AMOUNTS = (
    "NaN",
    "Infinity",
    "1.5E-3",
    "1E17",
    "1e999999999",
    "-1",
    "-0.01",
    "1.234",
    "1_000",
    "",
    "9" * 19,
    "٣",
    "+1",
    "0x10",
)

BAD_BODIES = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a number": b"17",
    "a text": b'"win"',
    "empty object": b"{}",
    "deep nesting": b"[" * 30_000,
    "invalid UTF-8": b'{"transfer_id": "\xff\xfe"}',
    "a lone surrogate": b'{"transfer_id": "\\ud800"}',
    "a NUL": b'{"transfer_id": "a\\u0000b"}',
    "two values": b"{}{}",
    "NaN": b'{"amount": NaN}',
    "too large": b'{"amount": "' + b"1" * GATEWAY_BODY_BYTES_MAX + b'"}',
}


@pytest.fixture(scope="module")
async def system(servers: Servers) -> AsyncIterator[System]:
    async with running_system(servers, workers=1) as running:
        await running.add_players([PLAYER])
        yield running


@pytest.fixture(autouse=True)
async def nothing_moved(system: System) -> AsyncIterator[None]:
    yield
    assert await system.query("SELECT count(*) FROM transfers") == [(0,)]
    assert await system.balances() == {PLAYER: 0}


def composed(system: System, integration: str, amount: str = "1.00") -> Callback:
    """Return a provider's signed win."""
    return dialect_of(system.providers[integration]).with_amount(FACTS.another(), amount)


def with_body(system: System, integration: str, body: bytes) -> Callback:
    """Return a provider's request of another body, signed where a header signs the body."""
    return dialect_of(system.providers[integration]).raw(body, facts=FACTS)


def assert_own_error(system: System, integration: str, response: Response, status: int | None = None) -> None:
    """The provider can read the error, and it is a final one; `status` is one that no provider has."""
    assert response.status == (status or response.status)
    statuses = [response.status] if status is None else [200, 400]
    readings = {read_reply(system.providers[integration], "EUR", response._replace(status=s))[0] for s in statuses}
    assert ReplyMeaning.REFUSED in readings, response
    assert b"Traceback" not in response.body


@pytest.mark.parametrize("integration", INTEGRATIONS)
@pytest.mark.parametrize("amount", BAD_AMOUNTS)
async def test_amount_that_is_none_moves_nothing(system: System, integration: str, amount: str) -> None:
    (response,) = await send_all(system.url, [http_bytes(integration, composed(system, integration, amount))], 1)
    assert_own_error(system, integration, response)


@pytest.mark.parametrize("integration", INTEGRATIONS)
@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_body_that_is_no_credit_moves_nothing(system: System, integration: str, kind: str) -> None:
    callback = with_body(system, integration, BAD_BODIES[kind])
    (response,) = await send_all(system.url, [http_bytes(integration, callback)], 1)
    assert_own_error(system, integration, response)


@pytest.mark.parametrize("integration", INTEGRATIONS)
@pytest.mark.parametrize("value", [None, [], {}, True, 1.5, "x" * 5_000], ids=str)
async def test_field_of_a_wrong_type_moves_nothing(system: System, integration: str, value: object) -> None:
    """Every field that names the money or the player, one after another, in a signed request."""
    callback = composed(system, integration)
    fields = json.loads(callback.body)
    dialect = dialect_of(system.providers[integration])
    for name in {dialect.tx_field, dialect.player_field} & set(fields):
        changed = json.dumps({**fields, name: value}).encode()
        request = http_bytes(integration, with_body(system, integration, changed))
        (response,) = await send_all(system.url, [request], 1)
        assert_own_error(system, integration, response)


@pytest.mark.parametrize("integration", INTEGRATIONS)
async def test_truncated_json_moves_nothing(system: System, integration: str) -> None:
    callback = composed(system, integration)
    half = with_body(system, integration, callback.body[: len(callback.body) // 2])
    (response,) = await send_all(system.url, [http_bytes(integration, half)], 1)
    assert_own_error(system, integration, response)


@pytest.mark.parametrize("integration", INTEGRATIONS)
async def test_other_method_moves_nothing(system: System, integration: str) -> None:
    callback = composed(system, integration)
    get = http_bytes(integration, callback).replace(b"POST", b"GET", 1)
    (got,) = await send_all(system.url, [get], 1)
    assert_own_error(system, integration, got, status=405)


NO_SESSIONS = {"a NUL": "s%00", "half a pair": "%ED%A0%80", "nothing": "", "very long": "s" * 10_000}


@pytest.mark.parametrize("session_id", NO_SESSIONS.values(), ids=NO_SESSIONS)
async def test_session_that_can_be_nobodys_moves_nothing_and_ends_no_worker(system: System, session_id: str) -> None:
    callback = composed(system, "gpas")._replace(query={"walletSessionId": "SESSION"})
    request = http_bytes("gpas", callback).replace(b"SESSION", session_id.encode(), 1)
    (response,) = await send_all(system.url, [request], 1)
    assert_own_error(system, "gpas", response)
    await system.until_ready()
    assert all(worker.is_running for worker in system.workers)


NO_PLAYERS = {"a NUL": "\\u0000", "half a pair": "\\ud800", "nothing": "", "very long": "p" * 10_000}


@pytest.mark.parametrize("player_id", NO_PLAYERS.values(), ids=NO_PLAYERS)
async def test_balance_of_who_can_be_nobody_is_refused_and_ends_no_worker(system: System, player_id: str) -> None:
    body = f'{{"request_id":"1","timestamp":1710000000,"session_id":"2","player_id":"{player_id}"}}'.encode()
    callback = with_body(system, "klas", body)._replace(path="balance")
    (response,) = await send_all(system.url, [http_bytes("klas", callback)], 1)
    assert_own_error(system, "klas", response)
    await system.until_ready()
    assert all(worker.is_running for worker in system.workers)


async def test_connection_cut_in_the_middle_of_a_body_moves_nothing(system: System) -> None:
    for integration in INTEGRATIONS:
        request = http_bytes(integration, composed(system, integration))
        _, writer = await connect(system.url)
        writer.write(request[:-10])
        await writer.drain()
        writer.transport.abort()
    await system.until_ready()


async def test_body_without_end_is_refused_at_the_bound(system: System) -> None:
    """Chunked, so that no length announces it."""
    reader, writer = await connect(system.url)
    writer.write(b"POST /klas/credit HTTP/1.1\r\nhost: gateway\r\ntransfer-encoding: chunked\r\n\r\n")
    chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    for _ in range(GATEWAY_BODY_BYTES_MAX // 0x4000 + 1):
        writer.write(chunk)
    assert_own_error(system, "klas", await read_response(reader))
    writer.close()


async def test_unknown_path_is_not_found(system: System) -> None:
    request = b"POST /nobody/credit HTTP/1.1\r\nhost: gateway\r\ncontent-length: 0\r\n\r\n"
    (response,) = await send_all(system.url, [request], 1)
    assert response.status == 404
