"""A wire that can be cut, frozen and slowed: a TCP proxy on loopback."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from shared.broker_url import node_urls

CHUNK_BYTES: Final = 65_536
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Proxy:
    """One wire to one server, or to each node of it, which any number of connections may share."""

    def __init__(self, *targets: tuple[str, int]) -> None:
        """Take host and port of each node."""
        self._targets: Final = targets
        self._listeners: Final[list[asyncio.Server]] = []
        self._wires: Final[dict[tuple[asyncio.StreamWriter, asyncio.StreamWriter], int]] = {}
        self._pumps: Final[set[asyncio.Task[None]]] = set()
        self._flows: Final = asyncio.Event()
        self._delay_seconds = 0.0
        self.ports: Final = [0] * len(targets)
        """Where it listens, for each node."""

    @property
    def in_use(self) -> Counter[int]:
        """How many connections there are, by the port of the node that they lead to."""
        return Counter(self._wires.values())

    async def start(self) -> None:
        """Listen, on the same ports after each cut."""
        self._flows.set()
        for number, target in enumerate(self._targets):
            connect = partial(self._connect, target)
            listener = await asyncio.start_server(connect, "127.0.0.1", self.ports[number])
            self.ports[number] = listener.sockets[0].getsockname()[1]
            self._listeners.append(listener)

    async def cut(self) -> None:
        """Reset every connection and refuse new ones, until `mend`."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self._reset_all()

    def _reset_all(self) -> None:
        for both in list(self._wires):
            for writer in both:
                _reset(writer)

    def freeze(self) -> None:
        """Let nothing through in either direction and close nothing, until `mend`: a half-open connection.

        New connections are accepted, and as silent.
        """
        self._flows.clear()

    def slow(self, seconds: float) -> None:
        """Hold everything back for so long, in each direction, until `mend`."""
        self._delay_seconds = seconds

    async def drop_frozen(self) -> None:
        """Forget the connections that are frozen, as a router does that was restarted."""
        self._reset_all()
        await self.mend()

    async def mend(self) -> None:
        """Let everything through, also what was held back."""
        self._delay_seconds = 0.0
        self._flows.set()
        if not self._listeners:
            await self.start()

    async def stop(self) -> None:
        """Close everything, and return when it is closed."""
        writers = [writer for both in self._wires for writer in both]
        await self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, *(w.wait_closed() for w in writers), return_exceptions=True)

    async def _connect(
        self, target: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            _reset(writer)
            return
        wire = writer, far_writer  # kept: a connection that nobody refers to is closed
        self._wires[wire] = target[1]
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        ]
        self._pumps.update(pumps)
        await asyncio.wait(pumps)
        self._pumps.difference_update(pumps)
        del self._wires[wire]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction; what came is carried in its order, however late."""
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                await self._flows.wait()
                writer.write(chunk)
                await writer.drain()
            await self._flows.wait()
        except OSError:
            pass
        finally:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side is told of a reset, not of an orderly end."""
    with suppress(OSError):  # it may be closed already
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[tuple[str, Proxy]]:
    """Put a proxy before the server of `url`, or before every node of it.

    Yield the URL to use instead, and the proxy.
    """
    urls = node_urls(url)
    proxy = Proxy(*map(_address, urls))
    await proxy.start()
    try:
        yield ",".join(map(_with_port, urls, proxy.ports)), proxy
    finally:
        await proxy.stop()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    account, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{port}"))
