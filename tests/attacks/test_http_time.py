"""What one client may take of a gateway: time, connections, and memory that stays."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from simulator.client import read_response
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.wins import assert_paid, responses, win_bytes

pytestmark = pytest.mark.slow

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

SECONDS_MAX = 0.5
CLOSED_WITHIN_SECONDS = 15
MIB = 1_048_576
FILES_MAX = 300


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    bounds = {f"{name}_seconds_max": SECONDS_MAX for name in ("head", "body", "idle", "write")}
    async with gateway_process(tmp_path_factory.mktemp("time"), pipelined_requests_max=100_000, **bounds) as running:
        yield running


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """Return what comes until the gateway closes the connection."""
    return await asyncio.wait_for(reader.read(), CLOSED_WITHIN_SECONDS)


@pytest.mark.parametrize(
    ("sent", "reason", "statuses"),
    [
        (b"", "head_seconds", []),
        (b"P", "head_seconds", [408]),
        (b"POST /klas/credit HTTP/1.1\r\nHost: gateway\r\nX: ", "head_seconds", [408]),
        (b"POST /klas/credit HTTP/1.1\r\nContent-Length: 9\r\n\r\n{", "body_seconds", [408]),
        (b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n", "idle_seconds", [404]),
        (b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\nP", "head_seconds", [404, 408]),
    ],
)
async def test_silent_client_is_hung_up_on(
    gateway: GatewayProcess, sent: bytes, reason: str, statuses: list[int]
) -> None:
    before = await gateway.refused(reason)
    reader, writer = await gateway.connect()
    writer.write(sent)
    assert [response.status for response in await responses(await until_closed(reader))] == statuses
    writer.close()
    assert await gateway.refused(reason) == before + 1
    await gateway.until_logged(reason)


async def test_client_that_sends_a_byte_at_a_time_is_hung_up_on(gateway: GatewayProcess) -> None:
    reader, writer = await gateway.connect()
    closed = asyncio.ensure_future(until_closed(reader))
    while not closed.done():
        writer.write(b"P")
        await asyncio.wait([closed], timeout=0.05)
    writer.close()
    (response,) = await responses(await closed)
    assert response.status in {400, 408}


async def test_client_that_does_not_read_is_hung_up_on(gateway: GatewayProcess) -> None:
    """Its replies fill what the kernel and the gateway keep for it; then nothing more is read."""
    before = await gateway.refused("write_seconds")
    reader, writer = await gateway.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio says so of all that it connects
    items = b'{"creditRequests":[' + b",".join([b"{}"] * 1_000) + b"]}"  # whose reply is thirty times as long
    head = b"POST /hpgames/bulkCredit HTTP/1.1\r\nHost: gateway\r\nContent-Length: %d\r\n\r\n" % len(items)

    async def send_on() -> None:
        while True:
            writer.write(head + items)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(send_on(), CLOSED_WITHIN_SECONDS)
    del reader
    assert await gateway.refused("write_seconds") == before + 1
    await gateway.win()


async def test_silent_connections_do_not_lock_honest_clients_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Up to the limit of files, with the default bounds; those that wait for a request to be paid stay."""
    async with gateway_process(tmp_path_factory.mktemp("crowd"), FILES_MAX) as gateway:
        reader, writer = await gateway.connect()
        writer.write(win_bytes())
        assert_paid(await read_response(reader))
        silent: list[Connection] = []
        for _ in range(20):
            silent += await asyncio.gather(*(gateway.connect() for _ in range(25)))
            await gateway.win()
        writer.write(win_bytes())
        assert_paid(await read_response(reader))
        assert await gateway.refused("connections") >= 250
        lines = await gateway.until_logged("connections")
        assert len(lines) < 20
        for _, each in [*silent, (reader, writer)]:
            each.close()


async def test_idle_connections_do_not_lock_honest_clients_out(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    async with gateway_process(tmp_path_factory.mktemp("idle"), connections_max=20) as gateway:
        idle: list[Connection] = []
        for _ in range(60):
            idle.append(await gateway.connect())
            idle[-1][1].write(b"GET /healthz HTTP/1.1\r\n\r\n")
            await read_response(idle[-1][0])
        await gateway.win()
        assert await until_closed(idle[0][0]) == b""
        assert not idle[-1][0].at_eof()
        for _, writer in idle:
            writer.close()


async def test_idle_connections_leave_newcomers_the_time_to_send(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One that has just come is not closed for the next while others idle that only ever sent junk."""
    async with gateway_process(tmp_path_factory.mktemp("newcomers"), connections_max=20) as gateway:
        idle = [await gateway.connect() for _ in range(20)]
        for reader, writer in idle:
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            assert (await read_response(reader)).status == 404
        reader, writer = await gateway.connect()
        silent = [await gateway.connect() for _ in range(9)]
        await asyncio.gather(*(until_closed(each) for each, _ in idle[:10]))
        writer.write(win_bytes())
        assert_paid(await read_response(reader))
        for _, each in [*idle, *silent, (reader, writer)]:
            each.close()


async def test_memory_of_large_requests_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Two hundred bulks of nearly 1 MB that nobody signed: what they took was kept for ever."""
    items = b",".join([b'{"x":"%s"}' % (b"y" * 960)] * 1_000)
    body = b'{"creditRequests":[' + items + b"]}"
    head = b"POST /hpgames/bulkCredit HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    async with gateway_process(tmp_path_factory.mktemp("large")) as gateway:
        await gateway.win()
        before = gateway.memory_bytes()
        for _ in range(4):
            connections = [await gateway.connect() for _ in range(50)]
            for _, writer in connections:
                writer.write(head % len(body) + body)
            await asyncio.gather(*(until_closed(reader) for reader, _ in connections))
            for _, writer in connections:
                writer.close()
        async with asyncio.timeout(CLOSED_WITHIN_SECONDS):
            while gateway.memory_bytes() > before + 40 * MIB:
                await asyncio.sleep(0.1)
        await gateway.win()


async def test_memory_of_connections_that_hung_up_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A hundred and twenty, each with 250 KB of requests, whose replies nobody read: they took 1.4 GiB."""
    flood = b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n"
    flood *= 250_000 // len(flood)
    async with gateway_process(tmp_path_factory.mktemp("memory")) as gateway:
        await gateway.win()
        before = gateway.memory_bytes()
        connections = [await gateway.connect() for _ in range(120)]
        for _, writer in connections:
            writer.write(flood)
        await asyncio.gather(*(writer.drain() for _, writer in connections), return_exceptions=True)
        await gateway.win()
        assert gateway.memory_bytes() < before + 100 * MIB
        for _, writer in connections:
            writer.transport.abort()
        async with asyncio.timeout(CLOSED_WITHIN_SECONDS):
            while gateway.memory_bytes() > before + 40 * MIB:
                await asyncio.sleep(0.1)
        await gateway.win()
