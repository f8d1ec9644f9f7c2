"""What the parser alone sees in bytes, and what a connection of ours makes of them."""

import asyncio
import contextlib
import re
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple

import httptools
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from shared.http import Interceptor, Request
from shared.http.connection import Connection
from shared.http.registry import ConnectionRegistry
from shared.settings_http import HttpBounds

_OFFER: Final = re.compile(rb"(?i)(^|\n)u(?=pgrade)")
_MAY_BE_RENAMED: Final = re.compile(rb"(?i)(^|\n)u")


def _without_offers(data: bytes) -> bytes:
    """Give headers that offer an upgrade another name: the request has to be read as if it had none."""
    return _OFFER.sub(rb"\1X", data)


class Seen(NamedTuple):
    """A whole request, as it was taken."""

    method: bytes
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def _seen(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> Seen:
    renamed = ((_MAY_BE_RENAMED.sub(b"x", name), value) for name, value in headers)
    kept = tuple(header for header in renamed if header[0] != b"xpgrade")
    return Seen(method, target.removesuffix(b"?"), kept, _MAY_BE_RENAMED.sub(rb"\1X", body))


class ParserAlone:
    """httptools' parser, fed everything at once. Its methods are the parser's callbacks."""

    def __init__(self, sent: bytes) -> None:
        self.seen: list[Seen] = []
        self.is_over = False
        self._parser = httptools.HttpRequestParser(self)
        self._line = b""
        """What came since the request began, where it is fed byte by byte."""
        fed = _without_offers(sent)
        pieces = [bytes((byte,)) for byte in fed] if b"RTSP/" in fed else [fed]
        try:
            for piece in pieces:
                self._line += piece
                self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.is_over = True

    def on_message_begin(self) -> None:
        self._line = self._line[-1:]
        self._target, self._body = b"", b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_in_head = True

    def on_url(self, piece: bytes) -> None:
        self._target += piece

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        version = self._parser.get_http_version()
        if not self._target.startswith(b"/"):
            self._target = _path_of(self._target)
        is_rtsp = b" RTSP/" in self._line.partition(b"\n")[0]
        is_ours = self._target.startswith(b"/") and version in {"1.1", "1.0"} and not is_rtsp
        if not is_ours or self._parser.get_method() == b"CONNECT":
            self.is_over = True
        self._is_last = version == "1.0" or not self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        self._body += piece

    def on_message_complete(self) -> None:
        if not self.is_over:
            self.seen.append(_seen(self._parser.get_method(), self._target, self._headers, self._body))
            self.is_over = self._is_last


def _path_of(target: bytes) -> bytes:
    scheme, *rest = target.split(b"/", 3)
    if scheme.lower() not in {b"http:", b"https:"} or len(rest) < 2 or rest[0] or not rest[1]:
        return b""
    return b"" if set(rest[1]) & set(b"?#") else b"/" + b"".join(rest[2:])


class _Wire(asyncio.Transport):
    """A client that reads everything."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """All is answered at once."""

    def resume_reading(self) -> None:
        """All is answered at once."""


class _Steps:
    """Stands in for the loop: runs a task as far as it goes, at once."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Coroutine[Any, Any, None], asyncio.Future[None] | None]] = []

    def create_task(self, task: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        self._waiting.append((task, None))
        return asyncio.get_running_loop().create_future()

    def run(self) -> None:
        """Let every task go on."""
        while any(future is None or future.done() for _, future in self._waiting):
            tasks, self._waiting = self._waiting, []
            for task, future in tasks:
                if future is not None and not future.done():
                    self._waiting.append((task, future))
                    continue
                with contextlib.suppress(StopIteration):
                    self._waiting.append((task, task.send(None)))


class Answers(Interceptor):
    """What answers, at the door and behind it: every reply has its request's number."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.at_door = 0

    def answer(self, request: Request) -> bytes | None:
        if request.method != b"POST" or request.target == b"/open":
            return None
        self.at_door += 1
        return _reply(self._take(request.method, request.target, request.headers, bytes(request.body)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        target = scope["raw_path"] + b"?" + scope["query_string"]
        number = b"%d" % self._take(scope["method"].encode(), target, scope["headers"], body)
        headers = [(b"content-length", b"%d" % len(number))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": number})

    def _take(self, method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> int:
        self.seen.append(_seen(method, target, headers, body))
        return len(self.seen)


def _reply(number: int) -> bytes:
    body = b"%d" % number
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class DifferenceError(AssertionError):
    """A connection made something else of bytes than the parser does."""


class Comparison:
    """Compares connections with the parser alone. To be used where a loop runs, which it never yields to."""

    def __init__(self) -> None:
        self._registry = ConnectionRegistry(HttpBounds())
        self._answers = Answers()
        self._config = uvicorn.Config(self._answers, ws="none", log_config=None, lifespan="off")
        self._config.load()
        self._config.loaded_app = self._answers
        self.at_door = 0
        """How many requests were answered at the door."""

    def compare(self, packets: list[bytes]) -> None:
        """Send packets on a connection. Raises DifferenceError."""
        steps, wire, answers = _Steps(), _Wire(), self._answers
        answers.seen, answers.at_door = [], 0
        connection = Connection(
            self._registry,
            answers,
            config=self._config,
            server_state=ServerState(),
            app_state={},
            _loop=steps,  # type: ignore[arg-type]  # as much of a loop as a connection needs
        )
        connection.connection_made(wire)
        for packet in packets:
            connection.data_received(packet)
            steps.run()
            self._registry.outbox.send()
        connection.connection_lost(None)
        steps.run()
        alone = ParserAlone(b"".join(packets))
        replies = re.findall(rb"HTTP/1.1 200 OK\r\n(?:[^\r]+\r\n)*\r\n(\d*)", wire.sent)
        heads = [b"" if seen.method == b"HEAD" else b"%d" % n for n, seen in enumerate(answers.seen, 1)]
        if answers.seen != alone.seen or replies != heads or wire.is_closed != alone.is_over:
            raise DifferenceError(f"{packets}\nconnection: {answers.seen} {wire.sent!r}\nparser: {alone.seen}")
        self.at_door += answers.at_door
