"""A connection of ours on a wire that keeps what leaves on it, without a socket."""

import asyncio
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from shared.http import Interceptor, Request, response_bytes
from shared.http.connection import Connection
from shared.http.registry import ConnectionRegistry
from shared.settings_http import HttpBounds

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n%s\r\n"
PLAIN = REQUEST % b"" + b"{}"
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

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self.closed_after is not None

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def can_write_eof(self) -> bool:
        return False


async def say_hi(_scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hi"})


def connection_of(
    app: ASGIApp,
    door: Interceptor,
    kind: type[Connection] = Connection,
    registry: ConnectionRegistry | None = None,
) -> Connection:
    config = uvicorn.Config(app, ws="none", log_config=None, access_log=False)
    config.load()
    registry = registry or ConnectionRegistry(HttpBounds())
    return kind(registry, door, config=config, server_state=ServerState(), app_state={})


def connect(app: ASGIApp, door: Interceptor) -> tuple[Wire, Callable[[bytes], None]]:
    protocol, wire = connection_of(app, door), Wire()
    protocol.connection_made(wire)
    return wire, protocol.data_received


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


AWAY = response_bytes(200, [("content-type", "application/json")], b"away")


class Closed(Interceptor):
    """A door at which all are turned away, unless it is opened."""

    is_open = False

    def answer(self, request: Request) -> bytes | None:
        return None if self.is_open or request.method != b"POST" else AWAY
