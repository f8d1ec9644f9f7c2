"""Paths, queries and headers that could be read in two ways, through the real port."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.providers.base import Callback
from simulator.client import Response, connect, http_bytes, read_response, send_all
from simulator.dialects import DIALECTS
from tests.support.gateway_process import GatewayProcess, gateway_process
from tests.support.system import INTEGRATIONS
from tests.support.wins import PROVIDERS, SESSION, assert_own_error, is_paid, win, with_lines

pytestmark = pytest.mark.slow

MARK = "marked-by-the-attacker"
LOGGED_WITHIN_SECONDS = 10.0


@pytest.fixture(scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    async with gateway_process(tmp_path_factory.mktemp("paths")) as running:
        yield running
        assert MARK not in running.log.read_text()


async def send(gateway: GatewayProcess, request: bytes) -> Response:
    (response,) = await send_all(gateway.url, [request], 1)
    assert MARK.encode() not in response.body
    assert "location" not in response.headers
    assert MARK not in str(response.headers)
    return response


def at(target: str, callback: Callback) -> bytes:
    """Return a signed callback that is sent to another target, and names a host of the attacker's."""
    lines = {**callback.headers, "host": MARK, "content-length": str(len(callback.body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + callback.body


@pytest.mark.parametrize("integration", INTEGRATIONS)
@pytest.mark.parametrize("path", ["{}/", "{}%2f", "{}/other", "other", "", "{}%00", "{}//", "./{}", "../x/{}", "{};a"])
async def test_other_path_of_an_integration_is_its_own_404_and_pays_nothing(
    gateway: GatewayProcess, integration: str, path: str
) -> None:
    before, callback = gateway.posted(), win(integration)
    response = await send(gateway, at(f"/{integration}/{path.format(callback.path)}", callback))
    assert_own_error(integration, response, "malformed", 404)
    assert gateway.posted() == before


@pytest.mark.parametrize("path", ["/klas/cr%65dit", "/klas/Credit", "/klas/credit%20", "/klas/credit\\"])
async def test_path_is_matched_as_it_was_sent(gateway: GatewayProcess, path: str) -> None:
    before = gateway.posted()
    assert_own_error("klas", await send(gateway, at(path, win("klas"))), "malformed", 404)
    assert gateway.posted() == before


@pytest.mark.parametrize(
    "path", ["//klas/credit", "/%6blas/credit", "/KLAS/credit", "/", "/klas%2fcredit", "/nobody/credit"]
)
async def test_path_of_no_integration_is_a_plain_404(gateway: GatewayProcess, path: str) -> None:
    before = gateway.posted()
    response = await send(gateway, at(path, win("klas")))
    assert (response.status, response.json) == (404, {"error": "not found"})
    assert gateway.posted() == before


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"OPTIONS / HTTP/1.1", b"GET /klas/other HTTP/1.1"])
async def test_other_methods_elsewhere_are_not_found(gateway: GatewayProcess, line: bytes) -> None:
    assert (await send(gateway, line + b"\r\nhost: x\r\n\r\n")).status == 404


async def test_options_of_the_whole_server_is_a_bad_request(gateway: GatewayProcess) -> None:
    assert (await send(gateway, b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n")).status == 400


async def test_other_method_on_a_callback_is_not_allowed(gateway: GatewayProcess) -> None:
    response = await send(gateway, b"GET /klas/credit HTTP/1.1\r\nhost: x\r\n\r\n")
    assert_own_error("klas", response, "malformed", 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("target", ["*", "klas/credit", f"{MARK}:80"])
async def test_target_that_is_no_path_is_a_bad_request(gateway: GatewayProcess, target: str) -> None:
    before = gateway.posted()
    response = await send(gateway, at(target, win("klas")))
    assert (response.status, response.headers["connection"]) == (400, "close")
    assert gateway.posted() == before


async def test_not_found_waits_for_no_body(gateway: GatewayProcess) -> None:
    reader, writer = await connect(gateway.url)
    writer.write(b"POST /klas/other HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n")
    assert (await asyncio.wait_for(read_response(reader), 5)).status == 404
    writer.close()


async def test_unknown_paths_are_counted_each_and_logged_once_a_second(gateway: GatewayProcess) -> None:
    def counted() -> int:
        said = [line for line in gateway.logged() if line["event"] == "refused unread"]
        return sum(line["requests"] for line in said if line.get("integration") == "hpgames")

    def lines() -> int:
        return sum(line["event"] == "refused unread" for line in gateway.logged())

    before, lines_before = counted(), lines()
    responses = await send_all(gateway.url, [at("/hpgames/x", win("hpgames"))] * 200, 4)
    assert {response.status for response in responses} == {404}
    async with asyncio.timeout(LOGGED_WITHIN_SECONDS):
        while counted() < before + 200:
            await asyncio.sleep(0.05)
    assert lines() - lines_before < 20
    labels = {"integration": "hpgames", "reason": "unknown_path"}
    assert await gateway.counted("credits_gateway_rejections_total", **labels) >= 200


BAD_QUERIES = {
    "a session twice": f"walletSessionId={SESSION}&walletSessionId={SESSION}",
    "two sessions": f"walletSessionId={SESSION}&walletSessionId={MARK}",
    "another name twice": f"walletSessionId={SESSION}&a=1&a={MARK}",
    "a name twice, encoded": f"walletSessionId={SESSION}&wallet%53essionId={MARK}",
    "many fields": f"walletSessionId={SESSION}&" + "&".join(f"a{n}=" for n in range(16)),
    "many separators": f"walletSessionId={SESSION}" + "&" * 16,
    "many bytes": f"walletSessionId={SESSION}&a=" + "b" * 4_096,
    "no UTF-8": f"walletSessionId={SESSION}&a=%ff",
    "half a pair": f"walletSessionId={SESSION}&a=%ED%A0%80",
    "no encoding": f"walletSessionId={SESSION}&a=%zz",
    "half an encoding": f"walletSessionId={SESSION}&a=%4",
}


@pytest.mark.parametrize("query", BAD_QUERIES.values(), ids=BAD_QUERIES)
async def test_query_that_can_be_read_in_two_ways_is_refused(gateway: GatewayProcess, query: str) -> None:
    before = gateway.posted()
    response = await send(gateway, at(f"/gpas/movements/credit?{query}", win("gpas")))
    assert_own_error("gpas", response, "malformed", 400)
    assert gateway.posted() == before


async def test_query_with_other_fields_is_heard(gateway: GatewayProcess) -> None:
    target = f"/gpas/movements/credit?a=&b=%C3%A9&walletSessionId={SESSION}&c"
    assert is_paid("gpas", await send(gateway, at(target, win("gpas"))))


async def test_blanks_around_a_signature_are_no_part_of_it(gateway: GatewayProcess) -> None:
    for name, signature in (("klas", "x-signature"), ("gpas", "x-parent-system-id"), ("gpas", "x-signature")):
        callback = win(name)
        given = f" \t{callback.headers[signature]} \t "
        blank = callback._replace(headers={**callback.headers, signature: given})
        assert is_paid(name, await send(gateway, http_bytes(name, blank)))


@pytest.mark.parametrize(
    ("integration", "header"),
    [
        ("klas", "x-signature"),
        ("gpas", "x-signature"),
        ("gpas", "x-parent-system-id"),
    ],
)
async def test_header_that_matters_may_come_twice_only_if_it_says_the_same(
    gateway: GatewayProcess, integration: str, header: str
) -> None:
    callback, before = win(integration), gateway.posted()
    status = DIALECTS[integration].status_of("malformed")
    for lines in ((f"{header}: {MARK}",), (f"{header}: ",)):
        response = await send(gateway, with_lines(http_bytes(integration, callback), *lines))
        assert_own_error(integration, response, "malformed", status)
    assert gateway.posted() == before
    same = f"{header}:  {callback.headers[header.lower()]} "
    assert is_paid(integration, await send(gateway, with_lines(http_bytes(integration, callback), same, "x-other: a")))
    others = with_lines(http_bytes(integration, win(integration)), "x-other: a", "x-other: b")
    assert is_paid(integration, await send(gateway, others))


async def test_content_type_of_any_kind_or_number_costs_no_win_and_is_not_quoted(
    gateway: GatewayProcess,
) -> None:
    for name in PROVIDERS:
        lines = f"content-type: text/{MARK}", "content-type: application/x-www-form-urlencoded"
        assert is_paid(name, await send(gateway, with_lines(http_bytes(name, win(name)), *lines)))


@pytest.mark.parametrize("query", ["a=1&a=2", "a=%", "b" * 5_000, f"walletSessionId={MARK}"])
async def test_query_costs_no_win_of_a_provider_that_reads_none(gateway: GatewayProcess, query: str) -> None:
    for name in (name for name, provider in PROVIDERS.items() if not provider.reads_query):
        callback = win(name)
        assert is_paid(name, await send(gateway, at(f"/{name}/{callback.path}?{query}", callback)))
