"""HTTP as it is served: what of a reply leaves together, and when."""

import asyncio
from collections.abc import Callable

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.http import WholeReplies

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n%s\r\n"
REPLY_END = b"\r\n\r\nhi"


class Wire(asyncio.Transport):
    """A connection that keeps what leaves on it, packet by packet."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed_after: int | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.packets.append(bytes(data))

    def close(self) -> None:
        self.closed_after = len(self.packets)

    def is_closing(self) -> bool:
        return self.closed_after is not None

    def pause_reading(self) -> None:
        """Nothing is read here."""

    def resume_reading(self) -> None:
        """Nothing is read here."""


async def _say_hi(_scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hi"})


@pytest.fixture
async def connection() -> tuple[Wire, Callable[[bytes], None]]:
    config = uvicorn.Config(_say_hi, http=WholeReplies, ws="none", log_config=None, access_log=False)
    config.load()
    protocol, wire = WholeReplies(config, ServerState(), app_state={}), Wire()
    protocol.connection_made(wire)
    return wire, protocol.data_received


async def _turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_head_and_body_leave_in_one_packet(connection: tuple[Wire, Callable[[bytes], None]]) -> None:
    wire, receive = connection
    for _ in range(2):
        receive(REQUEST % b"" + b"{}")
        await _turns()
    assert [(packet[:15], packet[-6:]) for packet in wire.packets] == [(b"HTTP/1.1 200 OK", REPLY_END)] * 2
    assert wire.closed_after is None


async def test_requests_that_came_together_are_all_answered(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive((REQUEST % b"" + b"{}") * 3)
    await _turns()
    sent = b"".join(wire.packets)
    assert sent.count(b"HTTP/1.1 200 OK") == sent.count(REPLY_END) == 3


async def test_connection_that_ends_sends_the_whole_reply_first(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(REQUEST % b"Connection: close\r\n" + b"{}")
    await _turns()
    assert len(wire.packets) == wire.closed_after == 1
    assert wire.packets[0].endswith(REPLY_END)


async def test_who_waits_to_be_told_to_go_on_is_told_at_once(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(REQUEST % b"Expect: 100-continue\r\n")
    await _turns()
    assert wire.packets == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    receive(b"{}")
    await _turns()
    assert len(wire.packets) == 2
    assert wire.packets[1].endswith(REPLY_END)


async def test_what_is_no_request_is_refused_before_the_connection_ends(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(b"no request\r\n\r\n")
    assert wire.packets[0].startswith(b"HTTP/1.1 400")
    assert wire.closed_after == 1
