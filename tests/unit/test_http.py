"""HTTP as it is served: what of a reply leaves together, and when."""

import asyncio
import gc
import resource
import socket
import struct
from collections.abc import Callable

import pytest
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.server import ServerState

from shared.http import Door, Request, allow_connections, response_bytes
from shared.http.connection import Connection
from shared.http.exchange import Exchange
from shared.http.reader import RequestReader
from shared.http.registry import SMALL_BYTES, ConnectionRegistry
from shared.http.server import FILES_OF_CLIENTS, below_file_limit
from shared.settings import HttpBounds

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n%s\r\n"
RESET = struct.pack("ii", 1, 0)
REPLY_END = b"\r\n\r\nhi"


class Wire(asyncio.Transport):
    """A connection that keeps what leaves on it, packet by packet."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.closed_after: int | None = None
        self.is_read = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.packets.append(bytes(data))

    def close(self) -> None:
        self.closed_after = len(self.packets)

    def is_closing(self) -> bool:
        return self.closed_after is not None

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def can_write_eof(self) -> bool:
        return False


async def _say_hi(_scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hi"})


def connection_of(
    app: ASGIApp,
    door: Door,
    kind: type[Connection] = Connection,
    registry: ConnectionRegistry | None = None,
) -> Connection:
    config = uvicorn.Config(app, ws="none", log_config=None, access_log=False)
    config.load()
    registry = registry or ConnectionRegistry(HttpBounds())
    return kind(registry, door, config=config, server_state=ServerState(), app_state={})


def connect(app: ASGIApp, door: Door) -> tuple[Wire, Callable[[bytes], None]]:
    protocol, wire = connection_of(app, door), Wire()
    protocol.connection_made(wire)
    return wire, protocol.data_received


@pytest.fixture
async def connection() -> tuple[Wire, Callable[[bytes], None]]:
    return connect(_say_hi, Door())


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


async def test_client_of_the_version_before_is_not_told_to_go_on(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0") % b"Expect: 100-continue\r\n")
    await _turns()
    receive(b"{}")
    await _turns()
    assert [packet[:15] for packet in wire.packets] == [b"HTTP/1.1 200 OK"]


async def test_request_of_another_protocol_is_refused(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(b"SOURCE / ICE/1.1\r\n\r\n")
    await _turns()
    assert wire.packets[0].startswith(b"HTTP/1.1 400")


async def test_what_is_no_request_is_refused_before_the_connection_ends(
    connection: tuple[Wire, Callable[[bytes], None]],
) -> None:
    wire, receive = connection
    receive(b"no request\r\n\r\n")
    await _turns()
    assert wire.packets[0].startswith(b"HTTP/1.1 400")
    assert wire.closed_after == 1


AWAY = response_bytes(200, [("content-type", "application/json")], b"away")
PLAIN = REQUEST % b"" + b"{}"


class Closed(Door):
    """A door at which all are turned away, unless it is opened."""

    is_open = False

    def answer(self, request: Request) -> bytes | None:
        return None if self.is_open or request.method != b"POST" else AWAY


async def test_door_answers_only_what_comes_whole() -> None:
    """A request whose head came first was begun before its end was there."""
    wire, receive = connect(_say_hi, Closed())
    receive(PLAIN)
    await _turns()
    assert wire.packets == [AWAY]
    receive(PLAIN[:40])
    receive(PLAIN[40:-2])
    receive(PLAIN[-2:])
    await _turns()
    assert wire.packets[1].endswith(REPLY_END)
    receive(PLAIN[:40])
    receive(PLAIN[40:] + PLAIN)
    await _turns()
    assert wire.packets[2:] == [AWAY, AWAY]
    assert wire.closed_after is None


async def test_head_that_has_not_ended_is_not_answered() -> None:
    wire, receive = connect(_say_hi, Closed())
    receive(b"POST / HTTP/1.1\r\nContent-Length: 0\r\nX: ")
    await _turns()
    assert wire.packets == []
    receive(b"y\r\n\r\n")
    await _turns()
    assert wire.packets == [AWAY]


async def test_body_that_looks_like_a_request_is_not_taken_for_one() -> None:
    """Not even where the request was answered before its body came."""

    async def answer_unread(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi"})

    wire, receive = connect(answer_unread, Closed())
    receive(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (2 * len(PLAIN)))
    await _turns()
    receive(PLAIN)
    receive(PLAIN)
    await _turns()
    assert [packet.endswith(REPLY_END) for packet in wire.packets] == [True]
    receive(PLAIN)
    await _turns()
    assert wire.packets[1:] == [AWAY]


async def test_who_is_turned_away_overtakes_nobody() -> None:
    """A client that sends on without waiting gets its replies in their order."""
    door = Closed()
    wire, receive = connect(_say_hi, door)
    door.is_open = True
    receive(PLAIN)
    door.is_open = False
    receive(PLAIN)
    await _turns()
    receive(PLAIN)
    await _turns()
    sent = b"".join(wire.packets)
    assert sent.count(REPLY_END) == 2
    assert sent.endswith(AWAY)


async def test_client_that_does_not_read_is_sent_nothing_more() -> None:
    """Neither by the door; what it has sent is answered when it reads again."""
    protocol, wire = connection_of(_say_hi, Closed()), Wire()
    protocol.connection_made(wire)
    protocol.data_received(PLAIN)
    protocol.pause_writing()
    assert not wire.is_read
    protocol.data_received(PLAIN + PLAIN)
    await _turns()
    assert wire.packets == [AWAY]
    protocol.resume_writing()
    await _turns()
    assert b"".join(wire.packets).count(REPLY_END) == 2
    assert wire.is_read


async def test_small_requests_are_never_refused_for_what_others_hold() -> None:
    registry = ConnectionRegistry(HttpBounds(buffered_bytes_max=100_000))
    large, other, small = (connection_of(_say_hi, Door()) for _ in range(3))
    assert registry.hold(large, 100_000)
    assert not registry.hold(other, SMALL_BYTES + 1)
    assert registry.hold(small, SMALL_BYTES)
    registry.hold(large, 0)
    assert registry.hold(other, SMALL_BYTES + 1)


def body_of(bytes_sent: int, bytes_announced: int) -> bytes:
    return b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % bytes_announced + b" " * bytes_sent


async def test_largest_unfinished_request_is_refused_first() -> None:
    registry = ConnectionRegistry(HttpBounds(buffered_bytes_max=100_000))
    sent = []
    for body_bytes in (20_000, 70_000, 30_000):
        connection, wire = connection_of(_say_hi, Door(), registry=registry), Wire()
        connection.connection_made(wire)
        connection.data_received(body_of(body_bytes, 80_000))
        await _turns()
        sent.append(wire.packets)
    assert [b"".join(packets)[:12] for packets in sent] == [b"", b"HTTP/1.1 503", b""]


async def test_request_is_counted_until_the_application_is_done_with_it() -> None:
    """Though it is whole, and even though its client is gone."""
    done = asyncio.Event()

    async def answer_when_done(scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_when_done() -> Message:
            message = await receive()
            await done.wait()
            return message

        await _say_hi(scope, receive_when_done, send)

    registry = ConnectionRegistry(HttpBounds(buffered_bytes_max=100_000))

    async def reply() -> tuple[Connection, bytes]:
        connection, wire = connection_of(answer_when_done, Door(), registry=registry), Wire()
        connection.connection_made(wire)
        connection.data_received(body_of(70_000, 70_000))
        await _turns()
        return connection, b"".join(wire.packets)[:12]

    first, _ = await reply()
    assert (await reply())[1] == b"HTTP/1.1 503"
    first.connection_lost(None)
    assert (await reply())[1] == b"HTTP/1.1 503"
    done.set()
    await _turns()
    assert (await reply())[1] == b"HTTP/1.1 200"
    assert (await reply())[1] == b"HTTP/1.1 200"


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
    wire, receive = connect(_say_hi, Closed())
    receive(last + PLAIN)
    await _turns()
    assert [packet.endswith(REPLY_END) for packet in wire.packets] == [True]
    assert b"\r\nconnection: close\r\n" in wire.packets[0]
    assert wire.closed_after == 1


async def test_nothing_keeps_a_connection_that_is_lost() -> None:
    """Garbage is searched for so seldom that what only a search would find fills the memory."""

    async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.01)
        await _say_hi(scope, receive, send)

    def kept() -> int:
        return sum(isinstance(each, (Connection, RequestReader, Exchange)) for each in gc.get_objects())

    gc.collect()
    before, lost = kept(), asyncio.Queue[None]()

    class Watched(Connection):
        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            lost.put_nowait(None)

    server = await asyncio.get_running_loop().create_server(
        lambda: connection_of(answer_late, Door(), Watched), "127.0.0.1", 0
    )
    gc.disable()
    try:
        for sent in (b"", PLAIN[:30], PLAIN[:-1], PLAIN, PLAIN * 5, PLAIN * 20, b"junk\r\n\r\n"):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(sent)
            await writer.drain()
            await _turns()
            # Without this the client would seem to wait for its replies, with its sending side closed.
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()
            await asyncio.wait_for(lost.get(), 10)
        async with asyncio.timeout(10):
            while kept() > before:  # until the application has answered nobody
                await asyncio.sleep(0.05)
    finally:
        gc.enable()
        server.close()


def test_bounds_leave_files_for_the_rest_of_the_process() -> None:
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most, few = HttpBounds(connections_max=10**9), HttpBounds(connections_max=7)
    assert below_file_limit(most, FILES_OF_CLIENTS).connections_max == files_max * 3 // 4
    assert below_file_limit(few, FILES_OF_CLIENTS).connections_max == 7


def test_as_many_files_may_be_open_as_are_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    allow_connections()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
