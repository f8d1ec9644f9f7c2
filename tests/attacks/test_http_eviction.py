"""Whose connections are closed where there are too many: not those that have carried an honest request."""

import asyncio
from pathlib import Path

import pytest

from simulator.client import connect, read_response
from tests.support.gateway_process import (
    REPLY_WITHIN_SECONDS,
    GatewayProcess,
    gateway_process,
    operator_process,
)
from tests.support.operator_api import TOKEN
from tests.support.wins import assert_paid, win_bytes

pytestmark = pytest.mark.slow

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CONNECTIONS_MAX = 20
OPERATOR_FILES_MAX = 128
GARBAGE = {
    "no callback": b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "a callback with a signature that is none": b"POST /klas/credit HTTP/1.1\r\nHost: gateway\r\n"
    b"X-Signature: 00\r\nContent-Length: 2\r\n\r\n{}",
}


async def ask(connection: Connection, request: bytes) -> int:
    """Send a request that is none of ours; return its reply's status."""
    reader, writer = connection
    writer.write(request)
    return (await asyncio.wait_for(read_response(reader), REPLY_WITHIN_SECONDS)).status


async def pay(connection: Connection) -> None:
    reader, writer = connection
    writer.write(win_bytes())
    assert_paid(await asyncio.wait_for(read_response(reader), REPLY_WITHIN_SECONDS))


async def _pay_on_new(gateway: GatewayProcess, number: int) -> list[Connection]:
    connections = [await gateway.connect() for _ in range(number)]
    for each in connections:
        await pay(each)
    return connections


async def test_garbage_on_many_connections_closes_none_that_was_paid_on(tmp_path: Path) -> None:
    """Though they idle for longer than all of those; and honest newcomers come in beside them."""
    async with gateway_process(tmp_path, connections_max=CONNECTIONS_MAX) as gateway:
        honest = await _pay_on_new(gateway, 5)
        strangers: list[Connection] = []
        for garbage in GARBAGE.values():
            for _ in range(2 * CONNECTIONS_MAX):
                strangers.append(await gateway.connect())
                await ask(strangers[-1], garbage)
            await gateway.win()
        for each in honest:
            await pay(each)
        assert await gateway.refused("connections") >= 2 * CONNECTIONS_MAX
        for _, writer in [*honest, *strangers]:
            writer.close()


async def test_connection_that_asks_with_a_good_token_stays(tmp_path: Path) -> None:
    """Of the operator API: requests without a token, on more connections than there may be, close none."""
    asked = b"GET /v1/players/player01 HTTP/1.1\r\nHost: x\r\n%s\r\n"
    token = f"Authorization: Bearer {TOKEN}\r\n".encode()
    async with gateway_process(tmp_path), operator_process(tmp_path, OPERATOR_FILES_MAX) as url:
        honest = await connect(url)
        assert await ask(honest, asked % token) == 200
        strangers = []
        for _ in range(2 * OPERATOR_FILES_MAX):
            strangers.append(await connect(url))
            assert await ask(strangers[-1], asked % b"") in {401, 429}
        assert await ask(honest, asked % token) == 200
        for _, writer in [honest, *strangers]:
            writer.close()
