"""Callbacks from addresses that an integration does not name, through the real port."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.app import create_app
from shared.settings import Settings
from simulator.client import Response, connect, http_bytes, read_response, send_all
from tests.support.gateway_process import GatewayProcess, environment_of, gateway_process, start_in_vain
from tests.support.system import INTEGRATIONS
from tests.support.wins import assert_own_error, is_paid, win, with_lines
from tests.unit.test_overload import BusyLedger, ask, request_of

pytestmark = pytest.mark.slow

ELSEWHERE, HERE = "192.0.2.0/24", "127.0.0.0/8"
PROVIDERS_ADDRESS = "192.0.2.7"


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    """A gateway that hears klas and igamingace from elsewhere, gpas from here, and hpgames from anywhere."""
    allowed = {
        "CREDITS_INTEGRATIONS__KLAS__ALLOWED_ADDRESSES": ELSEWHERE,
        "CREDITS_INTEGRATIONS__IGAMINGACE__ALLOWED_ADDRESSES": f'["{ELSEWHERE}"]',
        "CREDITS_INTEGRATIONS__GPAS__ALLOWED_ADDRESSES": f'["{ELSEWHERE}", "{HERE}"]',
    }
    async with gateway_process(tmp_path_factory.mktemp("addresses"), **allowed) as running:
        yield running


@pytest.fixture(scope="module")
async def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    """A gateway that believes a proxy on this machine, and hears every provider from elsewhere."""
    allowed = {f"CREDITS_INTEGRATIONS__{name.upper()}__ALLOWED_ADDRESSES": ELSEWHERE for name in INTEGRATIONS}
    directory = tmp_path_factory.mktemp("proxy")
    async with gateway_process(directory, trusted_proxies=HERE, **allowed) as running:
        yield running


def forwarded(integration: str, *values: str) -> bytes:
    lines = (f"X-Forwarded-For: {value}" for value in values)
    return with_lines(http_bytes(integration, win(integration)), *lines)


def assert_refused(integration: str, response: Response) -> None:
    """In the provider's words for a caller that it does not know, and with the end of the connection."""
    assert response.headers["connection"] == "close"
    assert_own_error(integration, response, "unknown_caller", 403)


async def test_only_the_named_addresses_are_heard(gateway: GatewayProcess) -> None:
    before = gateway.posted()
    for name in ("klas", "igamingace"):
        (response,) = await send_all(gateway.url, [http_bytes(name, win(name))], 1)
        assert_refused(name, response)
        (response,) = await send_all(gateway.url, [forwarded(name, PROVIDERS_ADDRESS)], 1)
        assert_refused(name, response)
    assert gateway.posted() == before
    for name in ("gpas", "hpgames"):
        (response,) = await send_all(gateway.url, [http_bytes(name, win(name))], 1)
        assert is_paid(name, response)


async def test_refused_before_the_body_is_read_whatever_the_method(gateway: GatewayProcess) -> None:
    for method in (b"POST", b"GET", b"PUT"):
        reader, writer = await connect(gateway.url)
        writer.write(method + b" /klas/credit HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n")
        assert_refused("klas", await asyncio.wait_for(read_response(reader), 5))
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_refusals_are_counted_each_and_logged_once_a_second(gateway: GatewayProcess) -> None:
    def told() -> list[int]:
        return [line["requests"] for line in gateway.logged() if line.get("reason") == "unknown_address"]

    before = told()
    request = http_bytes("klas", win("klas"))
    responses = [(await send_all(gateway.url, [request], 1))[0] for _ in range(100)]
    assert {response.status for response in responses} == {403}
    async with asyncio.timeout(10):
        while sum(told()) < sum(before) + 100:
            await asyncio.sleep(0.05)
    assert len(told()) - len(before) < 10
    labels = {"integration": "klas", "reason": "unknown_address"}
    assert await gateway.counted("credits_gateway_rejections_total", **labels) >= 100


@pytest.mark.parametrize("integration", INTEGRATIONS)
async def test_behind_a_trusted_proxy_its_header_counts(behind_a_proxy: GatewayProcess, integration: str) -> None:
    before = behind_a_proxy.posted()
    for values in (
        (),
        ("",),
        ("203.0.113.9",),
        (f"{PROVIDERS_ADDRESS}, 203.0.113.9",),
        (PROVIDERS_ADDRESS, "203.0.113.9"),
        (f"{PROVIDERS_ADDRESS}, nonsense",),
        (f"{PROVIDERS_ADDRESS}\xff",),
        ("127.0.0.1",),
    ):
        (response,) = await send_all(behind_a_proxy.url, [forwarded(integration, *values)], 1)
        assert_refused(integration, response)
    assert behind_a_proxy.posted() == before
    for heard in (f"203.0.113.9, {PROVIDERS_ADDRESS}",), ("203.0.113.9", PROVIDERS_ADDRESS, "127.0.0.1"):
        (response,) = await send_all(behind_a_proxy.url, [forwarded(integration, *heard)], 1)
        assert is_paid(integration, response)


async def test_overload_tells_no_stranger_to_ask_again() -> None:
    """At the door no address is seen, so it leaves these callbacks to the usual way."""
    tables = {name: {**table, "allowed_addresses": ELSEWHERE} for name, table in INTEGRATIONS.items()}
    tables["hpgames"] = dict(INTEGRATIONS["hpgames"])
    app = create_app(Settings.model_validate({"integrations": tables}), BusyLedger())
    for name in INTEGRATIONS:
        callback = win(name)
        at_the_door = app.load_shedder.answer(request_of(name, callback))
        assert (at_the_door is None) == (name != "hpgames")
        if at_the_door is None:
            assert_refused(name, await ask(app, "POST", f"/{name}/{callback.path}", callback))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "INTEGRATIONS__KLAS__ALLOWED_ADDRESSES",
            "hunter2",
            "[integrations.klas] allowed_addresses: number 1",
        ),
        ("INTEGRATIONS__KLAS__ALLOWED_ADDRESSES", "[]", "[integrations.klas] allowed_addresses: "),
        (
            "INTEGRATIONS__KLAS__ALLOWED_ADDRESSES",
            '["10.0.0.1/8"]',
            "[integrations.klas] allowed_addresses: ",
        ),
        ("GATEWAY__TRUSTED_PROXIES", "hunter2", "[gateway] trusted_proxies: number 1"),
        ("GATEWAY__OPERATIONS_PORT", "0", "[gateway] operations_port: "),
    ],
)
async def test_setting_that_is_none_is_one_line(gateway: GatewayProcess, variable: str, value: str, said: str) -> None:
    environment = environment_of(gateway.database.parent, **{f"CREDITS_{variable}": value})
    code, lines = await start_in_vain(environment)
    assert (code, len(lines)) == (3, 1)
    assert lines[0].startswith(f"credits: CREDITS_{variable}: {said}")
    assert "hunter2" not in lines[0]
