"""The operations port: polled without end it costs no win, and it tells the truth to the end."""

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from simulator.client import connect, http_bytes, read_response, send_all
from tests.support.gateway_process import GatewayProcess, environment_of, gateway_process, start_in_vain
from tests.support.system import INTEGRATIONS
from tests.support.wins import is_paid, win

pytestmark = pytest.mark.slow

POLLERS = 450
WINS_OF_EACH = 10
CONNECTIONS = 8


async def poll(url: str, path: str, statuses: set[int]) -> None:
    """Ask again as soon as there is an answer, until cancelled."""
    reader, writer = await connect(url)
    try:
        while True:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: gateway\r\n\r\n".encode())
            statuses.add((await read_response(reader)).status)
    finally:
        writer.close()


async def test_storm_of_pollers_costs_no_win(gateway: GatewayProcess) -> None:
    paths, statuses = ("/readyz", "/readyz", "/metrics"), set[int]()
    pollers = [
        asyncio.create_task(poll(gateway.operations_url, paths[n % len(paths)], statuses)) for n in range(POLLERS)
    ]
    before = gateway.posted()
    requests = [(name, http_bytes(name, win(name))) for name in INTEGRATIONS for _ in range(WINS_OF_EACH)]
    try:
        responses = await send_all(gateway.url, [request for _, request in requests], CONNECTIONS)
    finally:
        for poller in pollers:
            poller.cancel()
        ends = await asyncio.gather(*pollers, return_exceptions=True)
    assert all(is_paid(name, response) for (name, _), response in zip(requests, responses, strict=True))
    assert gateway.posted() == before + len(requests)
    assert statuses == {200}
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_operations_are_not_on_the_port_of_the_callbacks(gateway: GatewayProcess, path: str) -> None:
    async with httpx.AsyncClient() as client:
        assert (await client.get(gateway.operations_url + path)).status_code == 200
        elsewhere = await client.get(gateway.url + path)
        assert (elsewhere.status_code, elsewhere.json()) == (404, {"error": "not found"})
        redirected = await client.get(f"{gateway.operations_url}{path}/")
        assert (redirected.status_code, redirected.headers.get("location")) == (404, None)
        callback = await client.post(f"{gateway.operations_url}/klas/credit")
        assert callback.status_code == 404


async def test_gateway_that_ends_answers_what_is_under_way_and_is_not_ready_meanwhile(tmp_path: Path) -> None:
    async with gateway_process(tmp_path) as gateway:
        request = http_bytes("klas", win("klas"))
        reader, writer = await connect(gateway.url)
        writer.write(request[:-10])
        async with httpx.AsyncClient(base_url=gateway.operations_url) as client:
            assert (await client.get("/readyz")).status_code == 200
            gateway.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                while (answer := await client.get("/readyz")).status_code == 200:
                    await asyncio.sleep(0.02)
            assert answer.json() == {"status": "unavailable", "reason": "the gateway is stopping"}
            with pytest.raises(ConnectionRefusedError):
                await connect(gateway.url)
            writer.write(request[-10:])
            assert is_paid("klas", await read_response(reader))
        writer.close()
        assert await gateway.end() == 0
        assert gateway.posted() == 1


@pytest.mark.parametrize(
    ("taken", "setting"),
    [
        ("CREDITS_GATEWAY__PORT", "[gateway] host, port"),
        ("CREDITS_GATEWAY__OPERATIONS_PORT", "[gateway] operations_host, operations_port"),
    ],
)
async def test_port_that_is_taken_is_one_line(gateway: GatewayProcess, taken: str, setting: str) -> None:
    port = gateway.operations_url.rpartition(":")[2]
    environment = environment_of(gateway.database.parent, **{taken: port})
    assert await start_in_vain(environment) == (
        3,
        [f"credits: {setting}: can't listen on 127.0.0.1:{port}: address already in use"],
    )
