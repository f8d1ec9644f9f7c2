"""A wire that can be cut, frozen and slowed: a TCP proxy on loopback."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit, urlunsplit

CHUNK_BYTES: Final = 65_536
_NO_LINGER: Final = struct.pack("ii", 1, 0)


class Proxy:
    """One wire to one server, which any number of connections may share."""

    def __init__(self, host: str, port: int) -> None:
        """Take where the server is."""
        self._target: Final = host, port
        self._listener: asyncio.Server | None = None
        self._wires: Final[set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]]] = set()
        self._pumps: Final[set[asyncio.Task[None]]] = set()
        self._flows: Final = asyncio.Event()
        self._delay_seconds = 0.0
        self.port = 0

    async def start(self) -> None:
        """Listen, on the same port after each cut."""
        self._flows.set()
        self._listener = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Reset every connection and refuse new ones, until `mend`."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
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
        if self._listener is None:
            await self.start()

    async def stop(self) -> None:
        """Close everything, and return when it is closed."""
        writers = [writer for both in self._wires for writer in both]
        await self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, *(w.wait_closed() for w in writers), return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        wire = writer, far_writer  # kept: a connection that nobody refers to is closed
        self._wires.add(wire)
        pumps = [
            asyncio.ensure_future(self._pump(reader, far_writer)),
            asyncio.ensure_future(self._pump(far_reader, writer)),
        ]
        self._pumps.update(pumps)
        await asyncio.wait(pumps)
        self._pumps.difference_update(pumps)
        self._wires.discard(wire)

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
    """Put a proxy before the server of `url`; yield the URL to use instead, and the proxy."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy(parts.hostname, parts.port)
    await proxy.start()
    address = f"127.0.0.1:{proxy.port}"
    account, at, _ = parts.netloc.rpartition("@")
    try:
        yield urlunsplit(parts._replace(netloc=f"{account}{at}{address}")), proxy
    finally:
        await proxy.stop()
