"""One request and its reply, between the connection and an ASGI application."""

import asyncio
from functools import cache
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import unquote

import structlog
from starlette.types import ASGIApp, Message, Scope

from shared.http.door import ADMITTED
from shared.http.reader import Request

_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_DISCONNECT: Final = {"type": "http.disconnect"}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_PLAIN: Final = (b"content-type", b"text/plain; charset=utf-8")
CLOSE: Final = (b"connection", b"close")
_BODILESS: Final = frozenset((204, 304))

_log = structlog.get_logger()


class Carrier(Protocol):
    """The connection, as an exchange uses it."""

    endpoints: dict[str, Any]
    """The part of an ASGI scope that is the same for all requests of the connection."""

    def write(self, data: bytes) -> None:
        """Send what is not the end of a reply."""

    def read_on(self) -> None:
        """Read what was left unread because the body so far had not been taken."""

    def headers_of(self, exchange: "Exchange") -> list[tuple[bytes, bytes]]:
        """Return the headers that every reply has, and whether the connection closes after it."""

    def end(self, response: bytes, *, is_last: bool) -> None:
        """Send the reply, and go on with what waits, unless it is the connection's last."""


class Exchange:
    """Runs the application for one request. The reply is kept until it is whole, and leaves in one piece.

    So whatever fails before becomes a clean 500, and a client that does not read keeps one reply at most.
    """

    __slots__ = ("_carrier", "_ended", "_headers", "_invited", "_pieces", "_status", "_waiter", "request")

    def __init__(self, carrier: Carrier, request: Request) -> None:
        """Take the connection, and the request, whose body may still be coming."""
        self._carrier: Carrier | None = carrier
        self.request: Final = request
        self._waiter: asyncio.Future[None] | None = None
        self._invited = False
        """Whether the client was told, where it asked, that its body is wanted."""
        self._ended = False
        """Whether the application was given the end of the body."""
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []

    async def run(self, app: ASGIApp) -> None:
        """Have the application answer; if it does not, the reply is a 500."""
        try:
            await app(self._scope(), self._receive, self._send)
        except Exception:  # noqa: BLE001  (a defect ends one request, not the server)
            _log.exception("request failed")
        finally:
            if (carrier := self._carrier) is not None:
                self._status, self._headers, self._pieces = 500, [_PLAIN], [b"Internal Server Error"]
                self._end(carrier)

    def wake(self) -> None:
        """Let the application go on: more of the body has come."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def disconnect(self) -> None:
        """Let the application end: nobody will get a reply."""
        self._carrier = None
        self.request.is_discarded = True
        self.request.body = b""
        self.wake()

    def _scope(self) -> Scope:
        request, carrier = self.request, self._carrier
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
            **(carrier.endpoints if carrier is not None else {}),
        }

    async def _receive(self) -> Message:
        """Return what came of the body, once something did; then wait for the end of the connection."""
        request = self.request
        if not (request.is_whole or request.body or self._invited) and self._carrier is not None:
            self._invited = True
            if request.expects_continue:
                self._carrier.write(_CONTINUE)
        while self._carrier is not None:
            if request.body or (request.is_whole and not self._ended):
                body, self._ended = request.take(), request.is_whole
                if not request.is_whole:
                    self._carrier.read_on()
                return {"type": "http.request", "body": body, "more_body": not request.is_whole}
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return dict(_DISCONNECT)

    async def _send(self, message: Message) -> None:
        """Take the head of the reply, or a piece of its body."""
        carrier = self._carrier
        if carrier is None:
            return
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
            return
        self._pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            self._end(carrier)

    def _end(self, carrier: Carrier) -> None:
        is_last = CLOSE in self._headers
        response = self._response(carrier.headers_of(self))
        self.disconnect()
        carrier.end(response, is_last=is_last)

    def _response(self, of_connection: list[tuple[bytes, bytes]]) -> bytes:
        """Return the reply. Raises ValueError when a header would end its line early."""
        body, headers = b"".join(self._pieces), [*of_connection, *self._headers]
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
    """Return who talks to whom on a connection, and how, in the words of an ASGI scope."""
    return {
        "client": _address(transport.get_extra_info("peername")),
        "server": _address(transport.get_extra_info("sockname")),
        "scheme": "http" if transport.get_extra_info("sslcontext") is None else "https",
    }


def _address(name: Any) -> tuple[str, int] | None:
    """Return an address and a port, of what a socket tells; there is neither on a socket of another kind."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) else None
