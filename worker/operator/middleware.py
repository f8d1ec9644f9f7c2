"""What holds for every request: the token comes first, no fault shows itself, all is logged and counted.

What is logged is the operation and its subject, never the path: whoever knows the id of a session can play.
"""

import time
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import CursorError, LedgerUnavailable
from shared.http import trust_sender
from shared.http.clients import client_of, forwarded_for_of, peer_of
from shared.networks import Network, read_address
from worker.operator.auth import Caller, Tokens
from worker.operator.endpoint import response_of
from worker.operator.operation import Operation, Services
from worker.operator.problems import KINDS, Code, Refused, Reply, refusal, throttled, unavailable
from worker.operator.throttle import Throttle, source_of

IN_FLIGHT_MAX: Final = 500

UNAUTHORIZED_LINES_MAX: Final = 1_000
"""In the log, of requests without a good token, from however many addresses. Beyond, they are summed up."""

UNAUTHORIZED_LINES_SECONDS: Final = 60.0
"""The window in which there may be so many."""

_HEADERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Of every response: it may be about somebody's money, and is what it says it is."""

_UNAUTHORIZED: Final = KINDS[Code.UNAUTHORIZED].status

_log = structlog.get_logger()


class OperatorMiddleware:
    """The middleware around all routes."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, open_paths: frozenset[str], desk: Services) -> None:
        """Take the routes, who may ask, what is answered to anybody, and what counts and bounds."""
        self._app: Final = app
        self._tokens: Final = tokens
        self._open_paths: Final = open_paths
        self._desk: Final = desk
        self._lines: Final = Throttle(UNAUTHORIZED_LINES_MAX, UNAUTHORIZED_LINES_SECONDS)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Ids may hold a '/': routes match the path as it was sent, and the endpoint decodes each id.
        scope["path"] = scope["raw_path"].decode("latin-1")
        scope["source"] = _source(scope, self._desk.settings.operator.trusted_proxies)
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        # What anybody may ask counts for nothing: else pollers would keep everybody else out.
        counted = scope["path"] not in self._open_paths
        self._in_flight += counted
        try:
            await self._answer(scope, receive, sending)
        except ClientDisconnect:
            return  # there is nobody to answer
        finally:
            self._in_flight -= counted
        self._note(scope, status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] not in self._open_paths:
                self._authenticate(scope)
            await self._app(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  (a client never sees a trace)
            await response_of(_reply_to(error))(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        """Find out who asks. Raises Refused."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        caller = self._tokens.caller_of(given[0]) if len(given) == 1 else None
        if caller is None:
            self._refuse(scope, is_token_given=bool(given))
        scope["caller"] = caller
        trust_sender(scope)
        if self._in_flight > IN_FLIGHT_MAX:
            raise LedgerUnavailable(f"more than {IN_FLIGHT_MAX} requests at once")

    def _refuse(self, scope: Scope, *, is_token_given: bool) -> NoReturn:
        if seconds := self._desk.throttle.refuse(f"address {scope['source']}"):
            raise throttled(seconds)
        challenge = 'Bearer realm="credits"' + (', error="invalid_token"' if is_token_given else "")
        detail = "the token is nobody's" if is_token_given else "no bearer token was sent"
        raise Refused(Code.UNAUTHORIZED, detail, {"WWW-Authenticate": challenge})

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        operation: Operation | None = scope.get("operation")
        caller: Caller | None = scope.get("caller")
        name = operation.name if operation is not None else "none"
        self._desk.metrics.requests.labels(name, status).inc()
        self._desk.metrics.seconds.labels(name).observe(seconds)
        is_line_due = caller is not None or status != _UNAUTHORIZED or self._lines.allows("anybody")
        if status == KINDS[Code.THROTTLED].status or not is_line_due:
            self._desk.throttle_log.record(caller.name if caller is not None else scope["source"])
            return
        log = _log.debug if scope["path"] in self._open_paths else _log.info
        log(
            "request",
            method=scope["method"],
            path=operation.path if operation is not None else "none",
            operation=name,
            subject=scope.get("subject", ""),
            user=caller.name if caller is not None else "",
            client=scope["source"],
            status=status,
            ms=round(seconds * 1_000, 1),
        )


def _source(scope: Scope, trusted_proxies: Sequence[Network]) -> str:
    """Return what a client is counted under: a proxy itself, where it does not say whom it heard from."""
    peer = peer_of(scope)
    return source_of(client_of(peer, forwarded_for_of(scope), trusted_proxies) or read_address(peer))


def _reply_to(error: Exception) -> Reply:
    if isinstance(error, Refused):
        return error.reply
    if isinstance(error, CursorError):
        return refusal(Code.INVALID_CURSOR, str(error))
    if isinstance(error, LedgerUnavailable):
        _log.warning("no answer from the books", reason=str(error))
        return unavailable("the books gave no answer; ask again")
    _log.error("defect", exc_info=error)
    return refusal(Code.DEFECT, "the request was not answered; the log says why")


async def nowhere(*_asgi: Any) -> None:
    """Refuse a path that no route has."""
    raise Refused(Code.NO_SUCH_PATH, "see /openapi.json for the paths; ids in them are percent-encoded")
