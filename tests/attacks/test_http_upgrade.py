"""Offers of an upgrade: no body is lost for one, and none is read as a request."""

import pytest

from tests.support.gateway_process import GatewayProcess
from tests.support.wins import assert_paid, responses, win_bytes

pytestmark = pytest.mark.slow

OFFERS = {
    "curl --http2": (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
    ),
    "websocket": ("Upgrade: websocket", "Connection: upgrade"),
    "tls": ("Connection: Upgrade", "Upgrade: TLS/1.2, TLS/1.1"),
    "twice": ("Upgrade: h2c", "UPGRADE: websocket", "connection: keep-alive, Upgrade"),
}


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
async def test_win_that_offers_an_upgrade_is_paid(gateway: GatewayProcess, offer: tuple[str, ...]) -> None:
    """In one packet, in two between head and body, and in many."""
    win = win_bytes(*offer)
    head = win.index(b"\r\n\r\n") + 4
    for packets in ([win], [win[:head], win[head:]], [win[:head] + win[head : head + 9], win[head + 9 :]]):
        (response,) = await responses(await gateway.send(*packets))
        assert_paid(response)


async def test_every_pipelined_win_that_offers_an_upgrade_is_paid(gateway: GatewayProcess) -> None:
    wins = [win_bytes(*offer) for offer in OFFERS.values()]
    answered = await responses(await gateway.send(win_bytes() + b"".join(wins) + win_bytes()))
    assert len(answered) == len(wins) + 2
    for response in answered:
        assert_paid(response)


async def test_body_that_is_a_request_itself_is_not_answered(gateway: GatewayProcess) -> None:
    inner = b"GET /healthz HTTP/1.1\r\nHost: gateway\r\n\r\n"
    head = b"POST /klas/credit HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    sent = await gateway.send(head + b"Content-Length: %d\r\n\r\n%s" % (len(inner), inner))
    (response,) = await responses(sent)
    assert response.json == {"status_code": "ERR_INTEGRITY_CHECK_FAILED"}


async def test_client_behind_a_websocket_ready_proxy_gets_its_own_answer(gateway: GatewayProcess) -> None:
    """What nginx 1.22 sends with its documented map for WebSockets, on a connection that it keeps."""
    hidden = b"\r\n" * 8_192 + b"POST /klas/credit HTTP/1.1\r\nHost: gateway\r\nX-Ignored: "
    attack = (
        b"POST /klas/credit HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nHost: gateway\r\n"
        b"Content-Length: %d\r\nContent-Type: application/json\r\n\r\n%s" % (len(hidden), hidden)
    )
    refused, *paid = await responses(await gateway.send(attack, win_bytes(), win_bytes()))
    assert refused.json == {"status_code": "ERR_INTEGRITY_CHECK_FAILED"}
    assert len(paid) == 2
    for response in paid:
        assert_paid(response)


@pytest.mark.parametrize("target", [b"other:443", b"/klas/credit"])
async def test_nobody_is_connected_to_anything(gateway: GatewayProcess, target: bytes) -> None:
    sent = await gateway.send(b"CONNECT %s HTTP/1.1\r\nHost: other\r\n\r\n" % target + win_bytes())
    (response,) = await responses(sent)
    assert response.status == 400
