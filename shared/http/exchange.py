"""Runs an ASGI application for one request and returns its reply to the connection."""

import asyncio
from functools import cache
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

import structlog
from starlette.types import ASGIApp, Message, Scope

from shared.http.interceptor import ADMITTED
from shared.http.reader import Request

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_DISCONNECT: Final = {"type": "http.disconnect"}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
CLOSE: Final = (b"connection", b"close")
_BODILESS: Final = frozenset((204, 304))

_log = structlog.get_logger()


class ExchangeConnection(Protocol):
    """The part of a connection that an exchange uses."""

    endpoints: dict[str, Any]
    """The part of an ASGI scope that all requests of the connection share."""

    def write(self, data: bytes) -> None:
        """Send an interim reply."""

    def resume_body(self) -> None:
        """Read more of the body, which was left unread because the application had not consumed enough of it."""

    def reply_headers(self, exchange: "Exchange") -> list[tuple[bytes, bytes]]:
        """Return the headers of every reply, with `connection: close` where the connection closes after it."""

    def end(self, response: bytes, *, is_last: bool) -> None:
        """Send the reply and continue with the next request, unless `is_last`."""


class Exchange:
    """Runs the application for one request. The reply is buffered until it is complete, and sent in one piece.

    So any failure before that becomes a clean 500, and a client that does not read holds one reply at most.
    """

    __slots__ = ("_body_requested", "_connection", "_ended", "_headers", "_pieces", "_status", "_waiter", "request")

    def __init__(self, connection: ExchangeConnection, request: Request) -> None:
        """Take the connection, and the request, whose body may still be arriving."""
        self._connection: ExchangeConnection | None = connection
        self.request: Final = request
        self._waiter: asyncio.Future[None] | None = None
        self._body_requested = False
        """Whether the application has asked for the body; a client that waits for `100 Continue` was sent it then."""
        self._ended = False
        """Whether the application has received the end of the body."""
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []

    async def run(self, app: ASGIApp) -> None:
        """Run the application; reply 500 if it fails or sends no reply."""
        try:
            await app(self._scope(), self._receive, self._send)
        except Exception:  # noqa: BLE001  (a defect fails one request, not the server)
            _log.exception("request failed")
        finally:
            if (connection := self._connection) is not None:
                self._status, self._headers, self._pieces = 500, [_PLAIN], [b"Internal Server Error"]
                self._end(connection)

    def wake(self) -> None:
        """Resume the application, because more of the body has arrived."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def disconnect(self) -> None:
        """Detach from the connection: drop the rest of the body, and let the application receive a disconnect."""
        self._connection = None
        self.request.is_discarded = True
        self.request.body = b""
        self.wake()

    def _scope(self) -> Scope:
        request, connection = self.request, self._connection
        target, _, query = request.target.partition(b"?")
        path = target.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": "1.1",
            "method": request.method.decode("ascii"),
            "path": unquote(path) if "%" in path else path,
            "raw_path": target,
            "query_string": query,
            "root_path": "",
            "headers": request.headers,
            "state": {},
            ADMITTED: request.is_admitted,
            **(connection.endpoints if connection is not None else {}),
        }

    async def _receive(self) -> Message:
        """Return the next part of the body as soon as there is one; after the last, wait for the disconnect."""
        request = self.request
        if not (request.is_whole or request.body or self._body_requested) and self._connection is not None:
            self._body_requested = True
            if request.expects_continue:
                self._connection.write(_CONTINUE)
        while self._connection is not None:
            if request.body or (request.is_whole and not self._ended):
                body, self._ended = request.take_body(), request.is_whole
                if not request.is_whole:
                    self._connection.resume_body()
                return {"type": "http.request", "body": body, "more_body": not request.is_whole}
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return dict(_DISCONNECT)

    async def _send(self, message: Message) -> None:
        """Take the head of the reply, or a piece of its body."""
        connection = self._connection
        if connection is None:
            return
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
            return
        self._pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._end(connection)

    def _end(self, connection: ExchangeConnection) -> None:
        is_last = CLOSE in self._headers
        response = self._response(connection.reply_headers(self))
        self.disconnect()
        connection.end(response, is_last=is_last)

    def _response(self, connection_headers: list[tuple[bytes, bytes]]) -> bytes:
        """Return the whole reply. Raises ValueError if a header contains a line break."""
        body, headers = b"".join(self._pieces), [*connection_headers, *self._headers]
        if self._status not in _BODILESS and b"content-length" not in dict(self._headers):
            headers.append((b"content-length", b"%d" % len(body)))
        lines = [_status_line(self._status)]
        for name, value in headers:
            lines += name, b": ", value, b"\r\n"
        lines.append(b"\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(headers) + 2:
            raise ValueError("a line break in a header")
        return head if self.request.method == b"HEAD" else head + body


@cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode("ascii")


def endpoints_of(transport: asyncio.Transport) -> dict[str, Any]:
    """Return the client, server and scheme of a connection, as an ASGI scope has them."""
    return {
        "client": _address(transport.get_extra_info("peername")),
        "server": _address(transport.get_extra_info("sockname")),
        "scheme": "http" if transport.get_extra_info("sslcontext") is None else "https",
    }


def _address(name: Any) -> tuple[str, int] | None:
    """Return the host and port of a socket's name, or None for a socket that has neither."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
