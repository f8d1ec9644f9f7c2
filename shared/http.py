"""Serving HTTP, the same way for every process that does: uvicorn, a bounded body, an end that drains."""

import asyncio
import re
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.garbage import search_seldom
from shared.listening import BACKLOG, listen

DRAIN_SECONDS_MAX: Final = 15

TLS_BOUNDS: Final = {"ssl_handshake_timeout": 10.0, "ssl_shutdown_timeout": 2.0}
"""How long a client may take to begin and to end TLS, in seconds: meanwhile no other bound sees it."""

KEEP_ALIVE_SET_EVERY_SECONDS: Final = 1.0
"""Its timer is not set at each refusal: an idle connection may be closed so much sooner than usual."""


class Door:
    """Where requests come in: some may be answered before they are parsed."""

    def answer(self, received: bytes) -> bytes | None:  # noqa: ARG002
        """Take what came on a connection at rest; return a whole response, or None to have it parsed."""
        return None


async def serve(  # noqa: PLR0913  (a server has so many sides)
    app: ASGIApp,
    host: str,
    port: int,
    door: Door | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    setting: str = "port",
    when_stopping: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are answered first.

    `when_stopping` is called when no new connection is taken any more. Raises SettingsError, which names
    `setting`, when the port can't be had.
    """
    server = Server(_config(app, door), tls, when_stopping)
    sockets = listen(host, port, setting)
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(sign, lambda _sign, _frame: None)
    search_seldom()
    allow_connections()
    await server.serve(sockets)


@asynccontextmanager
async def serving(app: ASGIApp, host: str, port: int, *, setting: str = "port") -> AsyncIterator[None]:
    """Serve beside what is done in the block, until it ends; signals are for whoever serves in it.

    Raises SettingsError, which names `setting`, when the port can't be had.
    """
    server = Server(_config(app), heeds_signals=False)
    served = asyncio.create_task(server.serve(listen(host, port, setting)))
    try:
        yield
    finally:
        server.should_exit = True
        await served


def _config(app: ASGIApp, door: Door | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(Connection, door or Door()),  # type: ignore[arg-type]  # it is called as the class is
        ws="none",
        lifespan="off",  # what the application needs is opened by the caller, where a fault becomes one line
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who the client is, is for the application to say
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )


class Server(uvicorn.Server):
    """uvicorn's server on sockets that listen already; TLS has bounds, and signals may be for another."""

    def __init__(
        self,
        config: uvicorn.Config,
        tls: ssl.SSLContext | None = None,
        when_stopping: Callable[[], None] | None = None,
        *,
        heeds_signals: bool = True,
    ) -> None:
        """Take uvicorn's settings, what to speak TLS with, and what is called when it begins to end."""
        super().__init__(config)
        self._tls: Final[dict[str, Any]] = {"ssl": tls, **TLS_BOUNDS} if tls else {}
        self._when_stopping: Final = when_stopping or (lambda: None)
        self._heeds_signals: Final = heeds_signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on the sockets."""
        self.servers = [
            await asyncio.get_running_loop().create_server(
                self._connection, sock=each, backlog=BACKLOG, **self._tls
            )
            for each in sockets or []
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell that it ends, then drain."""
        self._when_stopping()
        await super().shutdown(sockets)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Take SIGTERM and SIGINT, unless another server of this process does."""
        return super().capture_signals() if self._heeds_signals else nullcontext()

    def _connection(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself calls it
            config=self.config, server_state=self.server_state, app_state={}
        )


def allow_connections() -> None:
    """Let this process have as many files, and so connections, as it is allowed to; often 1,024 at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Gathered:
    """A connection on which what is written in one turn of the event loop leaves together, in one packet.

    uvicorn writes a reply's head and its body apart, and uvloop sends what it is given at once: two system
    calls, and a client that wakes up twice. Everything but what stands here is the connection's own.
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

    def write_now(self, data: bytes) -> None:
        """Send it, with what was written before."""
        if self._written:
            self._written.append(data)
            self._send()
        else:
            self._transport.write(data)

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


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP, but for a reply's head and body leaving together, and a door before its parser."""

    def __init__(self, door: Door, **of_uvicorn: Any) -> None:
        """Take the door, and what uvicorn gives to each connection."""
        super().__init__(**of_uvicorn)
        self._door: Final = door
        self._is_read = True
        self._kept_alive_at = 0.0

    def on_message_begin(self) -> None:
        """Note that what comes belongs to a request, until it is whole."""
        self._is_read = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        self._is_read = True
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        """Refuse a target that is no path: a proxy's, or `*`, which nothing here answers."""
        if not self.url.startswith(b"/"):
            raise ValueError("the target is no path")  # which the parser makes a bad request of
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Answer at the door where nothing is under way, or have the request parsed."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # there is none before the first request
        is_at_rest = self._is_read and (cycle is None or cycle.response_complete)
        response = self._door.answer(data) if is_at_rest else None
        if response is None:
            super().data_received(data)
            return
        self._gathered.write_now(response)
        if (now := self.loop.time()) > self._kept_alive_at + KEEP_ALIVE_SET_EVERY_SECONDS:
            self._kept_alive_at = now
            self.on_response_complete()  # which lets the connection idle for its time anew

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection."""
        self._gathered = Gathered(transport)
        super().connection_made(cast("asyncio.Transport", self._gathered))


class PlainPost(NamedTuple):
    """A POST request that came in one piece."""

    path: str
    """As it was written, without the query."""

    body: bytes


def plain_post(received: bytes) -> PlainPost | None:
    r"""Return the POST that these bytes are, if they are one, whole, alone, and without anything unusual.

    >>> plain_post(b"POST /klas/credit?a=b HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    PlainPost(path='/klas/credit', body=b'{}')
    >>> plain_post(b"POST /klas/credit HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}") is None
    True
    """
    head, _, body = received.partition(b"\r\n\r\n")
    line, lengths = _POST.match(head), _CONTENT_LENGTHS.findall(head)
    if line is None or lengths != [b"%d" % len(body)] or _UNUSUAL.search(head):
        return None
    return PlainPost(line[1].decode("latin-1"), body)


_POST: Final = re.compile(rb"POST (/[^ ?]*)[^ ]* HTTP/1\.1\r\n")
_CONTENT_LENGTHS: Final = re.compile(rb"(?i)\r\ncontent-length:[ \t]*([^\r]*)")
_UNUSUAL: Final = re.compile(rb"(?i)\r\n(?:transfer-encoding|expect|upgrade|connection:(?![ \t]*keep-alive))")


def response_bytes(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return an HTTP response."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


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
