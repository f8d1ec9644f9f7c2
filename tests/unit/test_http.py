"""HTTP as it is served: what of a reply leaves together, and when."""

from collections.abc import Callable

import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

from shared.http import Interceptor
from tests.support.http_wire import (
    AWAY,
    PLAIN,
    REPLY_END,
    REQUEST,
    Closed,
    Wire,
    connect,
    connection_of,
    say_hi,
    turns,
)


@pytest_asyncio.fixture(loop_scope="function")
async def connection() -> tuple[Wire, Callable[[bytes], None]]:
    return connect(say_hi, Interceptor())


async def test_head_and_body_leave_in_one_packet(connection: tuple[Wire, Callable[[bytes], None]]) -> None:
    wire, receive = connection
    for _ in range(2):
        receive(REQUEST % b"" + b"{}")
        await turns()
    assert [(packet[:15], packet[-6:]) for packet in wire.packets] == [(b"HTTP/1.1 200 OK", REPLY_END)] * 2
    assert wire.closed_after is None


async def test_requests_that_came_together_are_all_answered(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive((REQUEST % b"" + b"{}") * 3)
    await turns()
    sent = b"".join(wire.packets)
    assert sent.count(b"HTTP/1.1 200 OK") == sent.count(REPLY_END) == 3


async def test_connection_that_ends_sends_the_whole_reply_first(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(REQUEST % b"Connection: close\r\n" + b"{}")
    await turns()
    assert len(wire.packets) == wire.closed_after == 1
    assert wire.packets[0].endswith(REPLY_END)


async def test_who_waits_to_be_told_to_go_on_is_told_at_once(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(REQUEST % b"Expect: 100-continue\r\n")
    await turns()
    assert wire.packets == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    receive(b"{}")
    await turns()
    assert len(wire.packets) == 2
    assert wire.packets[1].endswith(REPLY_END)


async def test_client_of_the_version_before_is_not_told_to_go_on(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0") % b"Expect: 100-continue\r\n")
    await turns()
    receive(b"{}")
    await turns()
    assert [packet[:15] for packet in wire.packets] == [b"HTTP/1.1 200 OK"]


async def test_request_of_another_protocol_is_refused(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(b"SOURCE / ICE/1.1\r\n\r\n")
    await turns()
    assert wire.packets[0].startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("line", [b"POST / RTSP/1.0", b"POST /  RTSP/1.1", b"GET http://x/y?z RTSP/1.1"])
@pytest.mark.parametrize("size", [1, 2, 9, 1_000])
async def test_request_of_rtsp_is_refused(
    connection: tuple[Wire, Callable[[bytes], None]], line: bytes, size: int
) -> None:
    """The parser takes it for one of HTTP; requests before it are answered."""
    wire, receive = connection
    sent = PLAIN + line + b"\r\nHost: x\r\n\r\n" + PLAIN
    for begin in range(0, len(sent), size):
        receive(sent[begin : begin + size])
        await turns()
    answered = b"".join(wire.packets)
    assert [answered.count(each) for each in (b"HTTP/1.1 200", b"HTTP/1.1 400")] == [1, 1]


@pytest.mark.parametrize("size", [1, 2, 9, 1_000])
async def test_name_of_rtsp_may_stand_elsewhere(connection: tuple[Wire, Callable[[bytes], None]], size: int) -> None:
    wire, receive = connection
    head = b"POST /RTSP/1.0 HTTP/1.1\r\nVia: RTSP/1.0 x\r\nX: y RTSP/1.0\r\nContent-Length: 19\r\n\r\n"
    sent = head + b"POST / RTSP/1.0\r\n\r\n" + PLAIN
    for begin in range(0, len(sent), size):
        receive(sent[begin : begin + size])
        await turns()
    assert b"".join(wire.packets).count(b"HTTP/1.1 200") == 2


async def test_body_of_nothing_but_names_of_rtsp_is_refused() -> None:
    """To look at each of them would take as long as a hundred requests for every kilobyte."""
    wire, receive = connect(say_hi, Interceptor())
    receive(b"POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n" + b"RTSP/" * 10_000)
    await turns()
    assert wire.packets[0].startswith(b"HTTP/1.1 400")


async def test_what_is_no_request_is_refused_before_the_connection_ends(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(b"no request\r\n\r\n")
    await turns()
    assert wire.packets[0].startswith(b"HTTP/1.1 400")
    assert wire.closed_after == 1


async def test_door_answers_only_what_comes_whole() -> None:
    """A request whose head came first was begun before its end was there."""
    wire, receive = connect(say_hi, Closed())
    receive(PLAIN)
    await turns()
    assert wire.packets == [AWAY]
    receive(PLAIN[:40])
    receive(PLAIN[40:-2])
    receive(PLAIN[-2:])
    await turns()
    assert wire.packets[1].endswith(REPLY_END)
    receive(PLAIN[:40])
    receive(PLAIN[40:] + PLAIN)
    await turns()
    assert wire.packets[2:] == [AWAY, AWAY]
    assert wire.closed_after is None


async def test_head_that_has_not_ended_is_not_answered() -> None:
    wire, receive = connect(say_hi, Closed())
    receive(b"POST / HTTP/1.1\r\nContent-Length: 0\r\nX: ")
    await turns()
    assert wire.packets == []
    receive(b"y\r\n\r\n")
    await turns()
    assert wire.packets == [AWAY]


async def test_body_that_looks_like_a_request_is_not_taken_for_one() -> None:
    """Not even where the request was answered before its body came."""

    async def answer_unread(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})

    wire, receive = connect(answer_unread, Closed())
    receive(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (2 * len(PLAIN)))
    await turns()
    receive(PLAIN)
    receive(PLAIN)
    await turns()
    assert [packet.endswith(REPLY_END) for packet in wire.packets] == [True]
    receive(PLAIN)
    await turns()
    assert wire.packets[1:] == [AWAY]


async def test_who_is_turned_away_overtakes_nobody() -> None:
    """A client that sends on without waiting gets its replies in their order."""
    door = Closed()
    wire, receive = connect(say_hi, door)
    door.is_open = True
    receive(PLAIN)
    door.is_open = False
    receive(PLAIN)
    await turns()
    receive(PLAIN)
    await turns()
    sent = b"".join(wire.packets)
    assert sent.count(REPLY_END) == 2
    assert sent.endswith(AWAY)


async def test_client_that_does_not_read_is_sent_nothing_more() -> None:
    """Neither by the door; what it has sent is answered when it reads again."""
    protocol, wire = connection_of(say_hi, Closed()), Wire()
    protocol.connection_made(wire)
    protocol.data_received(PLAIN)
    protocol.pause_writing()
    assert not wire.is_read
    protocol.data_received(PLAIN + PLAIN)
    await turns()
    assert wire.packets == [AWAY]
    protocol.resume_writing()
    await turns()
    assert b"".join(wire.packets).count(REPLY_END) == 2
    assert wire.is_read


@pytest.mark.parametrize(
    "last",
    [
        b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_connection_closes_where_its_client_wants_it(last: bytes) -> None:
    """The door would leave it open, so the application answers."""
    wire, receive = connect(say_hi, Closed())
    receive(last + PLAIN)
    await turns()
    assert [packet.endswith(REPLY_END) for packet in wire.packets] == [True]
    assert b"\r\nconnection: close\r\n" in wire.packets[0]
    assert wire.closed_after == 1
