"""What connections hold: bytes, files and places, and what is kept of one that is lost."""

import asyncio
import gc
import resource
import socket
import struct

import pytest
from starlette.types import Message, Receive, Scope, Send

from shared.http import Interceptor, raise_file_limit, trust_sender
from shared.http.connection import Connection
from shared.http.exchange import Exchange
from shared.http.reader import RequestReader
from shared.http.registry import SMALL_BYTES, ConnectionRegistry
from shared.http.server import CLIENT_FILES_SHARE, below_file_limit
from shared.settings_http import HttpBounds
from tests.support.http_wire import AWAY, PLAIN, REPLY_END, Closed, Wire, connection_of, say_hi, turns

RESET = struct.pack("ii", 1, 0)


async def test_small_requests_are_never_refused_for_what_others_hold() -> None:
    registry = ConnectionRegistry(HttpBounds(buffered_bytes_max=100_000))
    large, other, small = (connection_of(say_hi, Interceptor()) for _ in range(3))
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
        connection, wire = connection_of(say_hi, Interceptor(), registry=registry), Wire()
        connection.connection_made(wire)
        connection.data_received(body_of(body_bytes, 80_000))
        await turns()
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

        await say_hi(scope, receive_when_done, send)

    registry = ConnectionRegistry(HttpBounds(buffered_bytes_max=100_000))

    async def reply() -> tuple[Connection, bytes]:
        connection, wire = connection_of(answer_when_done, Interceptor(), registry=registry), Wire()
        connection.connection_made(wire)
        connection.data_received(body_of(70_000, 70_000))
        await turns()
        return connection, b"".join(wire.packets)[:12]

    first, _ = await reply()
    assert (await reply())[1] == b"HTTP/1.1 503"
    first.connection_lost(None)
    assert (await reply())[1] == b"HTTP/1.1 503"
    done.set()
    await turns()
    assert (await reply())[1] == b"HTTP/1.1 200"
    assert (await reply())[1] == b"HTTP/1.1 200"


@pytest.mark.slow
async def test_nothing_keeps_a_connection_that_is_lost() -> None:
    """Garbage is searched for so seldom that what only a search would find fills the memory."""

    async def answer_late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.01)
        await say_hi(scope, receive, send)

    def kept() -> int:
        return sum(isinstance(each, (Connection, RequestReader, Exchange)) for each in gc.get_objects())

    gc.collect()
    before, lost = kept(), asyncio.Queue[None]()

    class Watched(Connection):
        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            lost.put_nowait(None)

    server = await asyncio.get_running_loop().create_server(
        lambda: connection_of(answer_late, Interceptor(), Watched), "127.0.0.1", 0
    )
    gc.disable()
    try:
        for sent in (b"", PLAIN[:30], PLAIN[:-1], PLAIN, PLAIN * 5, PLAIN * 20, b"junk\r\n\r\n"):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(sent)
            await writer.drain()
            await turns()
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
    assert below_file_limit(most, CLIENT_FILES_SHARE).connections_max == files_max * 3 // 4
    assert below_file_limit(few, CLIENT_FILES_SHARE).connections_max == 7


def test_as_many_files_may_be_open_as_are_allowed() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    raise_file_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def trusting(scope: Scope, receive: Receive, send: Send) -> None:
    trust_sender(scope)
    await say_hi(scope, receive, send)


async def test_those_that_are_not_trusted_hold_half_of_the_bytes() -> None:
    """Together; and to make room for a trusted one, theirs are refused first, however small."""
    registry = ConnectionRegistry(HttpBounds(buffered_bytes_max=100_000), app_reports_trust=True)
    proxy, of_proxy = connection_of(trusting, Interceptor(), registry=registry), Wire()
    proxy.connection_made(of_proxy)
    proxy.data_received(PLAIN)
    await turns()
    wires = []
    for body_bytes in (20_000, 25_000, 15_000):
        stranger, wire = connection_of(say_hi, Interceptor(), registry=registry), Wire()
        stranger.connection_made(wire)
        stranger.data_received(body_of(body_bytes, 80_000))
        await turns()
        wires.append(wire)
    assert [b"".join(wire.packets)[:12] for wire in wires] == [b"", b"HTTP/1.1 503", b""]
    proxy.data_received(body_of(60_000, 80_000))
    proxy.data_received(b" " * 10_000)
    await turns()
    assert b"".join(wires[0].packets)[:12] == b"HTTP/1.1 503"
    proxy.data_received(b" " * 10_000)
    await turns()
    assert b"".join(of_proxy.packets).count(b"HTTP/1.1 200") == 2


async def test_connection_that_was_trusted_outlasts_those_that_came_after_it() -> None:
    """Though all that it sent since was turned away at the door, and though it waits for longest."""
    registry = ConnectionRegistry(HttpBounds(connections_max=3), app_reports_trust=True)
    door = Closed()
    door.is_open = True
    proxy, wire = connection_of(trusting, door, registry=registry), Wire()
    proxy.connection_made(wire)
    proxy.data_received(PLAIN)
    await turns()
    door.is_open = False
    proxy.data_received(PLAIN)
    await turns()
    assert b"".join(wire.packets).count(AWAY) == 1
    others = []
    for _ in range(5):
        other, of_other = connection_of(say_hi, door, registry=registry), Wire()
        other.connection_made(of_other)
        other.data_received(PLAIN)
        await turns()
        others.append(of_other)
    assert [each.is_closing() for each in others] == [True] * 3 + [False] * 2
    assert not wire.is_closing()


async def test_request_that_is_being_answered_is_not_cut_off_to_make_room() -> None:
    """Though nothing is known of who sent it yet; once it is answered in vain, its connection may go."""
    done = asyncio.Event()

    async def answer_when_done(scope: Scope, receive: Receive, send: Send) -> None:
        await done.wait()
        await say_hi(scope, receive, send)

    registry = ConnectionRegistry(HttpBounds(connections_max=2), app_reports_trust=True)
    wires = []
    for sent in (PLAIN, b"", b""):
        connection, wire = connection_of(answer_when_done, Interceptor(), registry=registry), Wire()
        connection.connection_made(wire)
        connection.data_received(sent)
        await turns()
        wires.append(wire)
    assert [wire.is_closing() for wire in wires] == [False, True, False]
    done.set()
    await turns()
    assert wires[0].packets[0].endswith(REPLY_END)
    connection_of(say_hi, Interceptor(), registry=registry).connection_made(Wire())
    assert [wire.is_closing() for wire in wires] == [True, True, False]
