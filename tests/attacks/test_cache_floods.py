"""What stands in the place of Redis or of a sentinel sends without end: a worker reads a part of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from redis.exceptions import InvalidResponse
from structlog.testing import capture_logs

from shared.settings import CacheSettings
from tests.support.caches import ONE, cache_on
from worker.ledger.cache.connection import ANSWER_BYTES_MAX, SENTINEL_BYTES_MAX, connection_pool

BUFFERS_BYTES_MAX = 16_000_000
"""Of both sockets and of asyncio's streams, generously: without a bound it is 100 MB and more."""

FLOODS = {
    "values": (b"*100000000\r\n", b":1\r\n" * 10_000),
    "a number of values alone": (b"*4000000000\r\n", b""),
    "a value": (b"$1000000000\r\n", b"x" * 65_536),
    "a length alone": (b"$99999999999999\r\n", b""),
    "a line": (b"+", b"x" * 65_536),
    "an error": (b"-ERR ", b"x" * 65_536),
    "values that are long each": (b"*5000\r\n", b"$16384\r\n%b\r\n" % (b"x" * 16_384)),
    "arrays in arrays": (b"", b"*1\r\n" * 10_000),
}


class Flood:
    """A server that answers without end, and how much of that was taken."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head, self.body = head, body
        self.bytes_sent = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the first command."""
        with suppress(OSError):
            await reader.read(65_536)
            writer.write(self.head)
            while self.body and not writer.is_closing():
                writer.write(self.body)
                await writer.drain()
                self.bytes_sent += len(self.body)
                await asyncio.sleep(0)
            await reader.read(65_536)
        writer.close()


@asynccontextmanager
async def flooding(head: bytes, body: bytes) -> AsyncIterator[Flood]:
    flood = Flood(head, body)
    server = await asyncio.start_server(flood.serve, "127.0.0.1", 0)
    async with server:
        flood.port = server.sockets[0].getsockname()[1]
        yield flood


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
@pytest.mark.parametrize(
    ("url", "bytes_max"),
    [
        ("redis://127.0.0.1:{}/0", ANSWER_BYTES_MAX),
        ("redis+sentinel://127.0.0.1:{}/mymaster/0", SENTINEL_BYTES_MAX),
    ],
    ids=["redis", "sentinel"],
)
async def test_answer_without_end_is_read_up_to_a_bound(flood: tuple[bytes, bytes], url: str, bytes_max: int) -> None:
    counted: list[str] = []
    async with flooding(*flood) as server:
        with capture_logs() as logged:
            async with cache_on(url.format(server.port), count=counted.append, timeout_seconds=1) as cache:
                while not counted:
                    await cache.get([ONE])
                    await asyncio.sleep(0.01)
        assert server.bytes_sent < bytes_max + BUFFERS_BYTES_MAX
    assert "an answer " in logged[0]["reason"], logged
    assert logged[0]["event"] == "cache rests"


async def answer_to_one_command(answer: bytes) -> object:
    """Return what a connection reads of an answer that comes in pieces of one byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        for at in range(len(answer)):
            writer.write(answer[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        pool = connection_pool(CacheSettings(url=url, timeout_seconds=1))
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_command("PING")
            return await connection.read_response()
        finally:
            await connection.disconnect()


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        (b"+PONG\r\n", b"PONG"),
        (b":-7\r\n", -7),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"*0\r\n", []),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*4\r\n$0\r\n\r\n$-1\r\n:1\r\n+x\r\n", [b"", None, 1, b"x"]),
    ],
)
async def test_answers_of_the_protocol_are_read_wherever_they_are_cut(answer: bytes, read: object) -> None:
    assert await answer_to_one_command(answer) == read


async def test_error_in_the_place_of_a_value_is_read_as_one() -> None:
    found = await answer_to_one_command(b"*2\r\n-WRONGTYPE of another kind\r\n$1\r\nx\r\n")
    assert isinstance(found, list)
    error, value = found
    assert (str(error), value) == ("WRONGTYPE of another kind", b"x")


@pytest.mark.parametrize("answer", [b"*x\r\n", b"$1x\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"\r\n"])
async def test_what_is_not_of_the_protocol_is_refused_without_its_words(answer: bytes) -> None:
    with pytest.raises(InvalidResponse, match=r"^an answer that is not of the protocol$"):
        await answer_to_one_command(answer)
