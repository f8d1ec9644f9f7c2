"""The reasons for which connections are refused or closed: their replies, a counter, and one log line a second."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import structlog

from shared.http.body import response_bytes
from shared.log_limit import SummedLog

_log = structlog.get_logger()


class Refusal(StrEnum):
    """A reason to refuse a request or to close its connection."""

    BAD_REQUEST = "bad_request"
    HEAD_BYTES = "head_bytes"
    HEAD_SECONDS = "head_seconds"
    BODY_SECONDS = "body_seconds"
    IDLE_SECONDS = "idle_seconds"
    WRITE_SECONDS = "write_seconds"
    CONNECTIONS = "connections"
    PIPELINED_REQUESTS = "pipelined_requests"
    BUFFERED_BYTES = "buffered_bytes"
    DISCARDED_BYTES = "discarded_bytes"
    FILES = "files"
    HANDSHAKE = "tls_handshake"
    HANDSHAKE_SECONDS = "tls_handshake_seconds"


def _reply(status: int, text: str) -> bytes:
    headers = ("content-type", "text/plain; charset=utf-8"), ("connection", "close")
    return response_bytes(status, headers, text.encode())


REPLIES: Final[Mapping[Refusal, bytes | None]] = {
    Refusal.BAD_REQUEST: _reply(400, "This is not a valid HTTP/1.1 request."),
    Refusal.HEAD_BYTES: _reply(431, "The request line and headers are too long."),
    Refusal.HEAD_SECONDS: _reply(408, "The request line and headers took too long."),
    Refusal.BODY_SECONDS: _reply(408, "The body took too long."),
    Refusal.IDLE_SECONDS: None,
    Refusal.WRITE_SECONDS: None,
    Refusal.CONNECTIONS: _reply(503, "There are too many connections."),
    Refusal.PIPELINED_REQUESTS: None,
    Refusal.DISCARDED_BYTES: None,
    Refusal.BUFFERED_BYTES: _reply(503, "Too many bytes of unfinished requests are here."),
    Refusal.FILES: None,
    Refusal.HANDSHAKE: None,
    Refusal.HANDSHAKE_SECONDS: None,
}
"""The reply before the connection closes, or None where there is none."""


class RefusalLog(SummedLog[Refusal]):
    """Counts each refusal, and logs one line a second for each reason."""

    def __init__(self, count: Callable[[str], None] | None = None) -> None:
        """Take the counter, which is called with each refusal's reason."""
        super().__init__()
        self._count: Final = count
        self._last_clients: Final[dict[Refusal, str]] = {}

    def record(self, refusal: Refusal, client: str) -> None:
        """Count a refusal of a client's connection."""
        if self._count is not None:
            self._count(refusal.value)
        self.add(refusal)
        self._last_clients[refusal] = client

    def _write(self, kind: Refusal, number: int) -> None:
        # Closing idle connections is ordinary.
        log = _log.info if kind is Refusal.IDLE_SECONDS else _log.warning
        last_client = self._last_clients.pop(kind)
        log("connections refused", reason=kind.value, number=number, last_client=last_client)
