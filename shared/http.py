"""Serving HTTP, the same way for every process that does: uvicorn, a bounded body, an end that drains."""

import asyncio
import signal
from collections.abc import Mapping
from typing import Any, Final, cast

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.garbage import search_seldom

DRAIN_SECONDS_MAX: Final = 15


async def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are answered first."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=WholeReplies,
        ws="none",
        lifespan="off",  # what the application needs is opened by the caller, where a fault becomes one line
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client is
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(sign, lambda _sign, _frame: None)
    search_seldom()
    await uvicorn.Server(config).serve()


class Gathered:
    """A connection on which what is written in one turn of the event loop leaves together, in one packet.

    uvicorn writes a reply's head and its body apart, and uvloop sends what it is given at once: two system
    calls, and a client that wakes up twice. Everything but `write` and `close` is the connection's own.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        """Take the connection, within the loop that it is on."""
        self._transport: Final = transport
        self._call_soon: Final = asyncio.get_running_loop().call_soon
        self._written: Final[list[bytes]] = []

    def write(self, data: bytes) -> None:
        """Have it sent, after what was written before, when this turn ends."""
        if not self._written:
            self._call_soon(self._send)
        self._written.append(data)

    def close(self) -> None:
        """Send what was written, then close."""
        self._send()
        self._transport.close()

    def _send(self) -> None:
        if self._written:
            self._transport.write(b"".join(self._written))
            self._written.clear()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class WholeReplies(HttpToolsProtocol):
    """uvicorn's HTTP, but for a reply's head and body leaving together."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        super().connection_made(cast("asyncio.Transport", Gathered(transport)))


async def read_body(receive: Receive, headers: Mapping[str, str], bytes_max: int) -> bytes | None:
    """Return the body, or None as soon as it exceeds the bound. Raises ClientDisconnect."""
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > bytes_max:
        return None
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > bytes_max:
            return None
        more = message.get("more_body", False)
    return body
