"""The middleware around every request: it authenticates, turns exceptions into error replies, logs and counts.

The log has the operation and its subject, never the path as it was sent: the path may hold the id of a session,
and anyone who knows that id can play.
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
from worker.operator.problems import (
    PROBLEM_TYPES,
    Code,
    ProblemError,
    Reply,
    problem_reply,
    throttled_error,
    unavailable_reply,
)
from worker.operator.throttle import Throttle, source_of

IN_FLIGHT_MAX: Final = 500
"""How many requests are served at once. Public paths don't count."""

UNAUTHORIZED_LINES_MAX: Final = 1_000
"""How many log lines requests without a valid token get in one window, from all addresses together.

Requests beyond that are summed up.
"""

UNAUTHORIZED_LINES_SECONDS: Final = 60.0
"""The length of that window."""

_HEADERS: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
"""Headers of every response: caches must not store balances, and browsers must not guess the content type."""

_UNAUTHORIZED: Final = PROBLEM_TYPES[Code.UNAUTHORIZED].status

_log = structlog.get_logger()


class OperatorMiddleware:
    """Wraps all routes, so that no request reaches a handler without a valid token unless its path is public."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, public_paths: frozenset[str], services: Services) -> None:
        """Wrap `app`. Paths in `public_paths` are served without a token."""
        self._app: Final = app
        self._tokens: Final = tokens
        self._public_paths: Final = public_paths
        self._services: Final = services
        self._line_limit: Final = Throttle(UNAUTHORIZED_LINES_MAX, UNAUTHORIZED_LINES_SECONDS)
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Ids may contain '/'. So routes match the path as it was sent, and the endpoint decodes each id.
        scope["path"] = scope["raw_path"].decode("latin-1")
        scope["source"] = _source(scope, self._services.settings.operator.trusted_proxies)
        started, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        # Requests to public paths don't count as in flight. Otherwise their pollers could lock out everybody else.
        is_counted = scope["path"] not in self._public_paths
        self._in_flight += is_counted
        try:
            await self._handle(scope, receive, send_with_headers)
        except ClientDisconnect:
            return  # nobody is left to reply to
        finally:
            self._in_flight -= is_counted
        self._log_and_count(scope, status, time.perf_counter() - started)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] not in self._public_paths:
                self._authenticate(scope)
            await self._app(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  (clients must not see tracebacks)
            await response_of(_reply_to(error))(scope, receive, send)

    def _authenticate(self, scope: Scope) -> None:
        """Set the caller whose token the request carries. Raises ProblemError, or LedgerUnavailable on overload."""
        credentials = [value for name, value in scope["headers"] if name == b"authorization"]
        caller = self._tokens.authenticate(credentials[0]) if len(credentials) == 1 else None
        if caller is None:
            self._reject(scope, is_token_given=bool(credentials))
        scope["caller"] = caller
        trust_sender(scope)
        if self._in_flight > IN_FLIGHT_MAX:
            raise LedgerUnavailable(f"more than {IN_FLIGHT_MAX} requests at once")

    def _reject(self, scope: Scope, *, is_token_given: bool) -> NoReturn:
        if seconds := self._services.throttle.count(f"address {scope['source']}"):
            raise throttled_error(seconds)
        challenge = 'Bearer realm="credits"' + (', error="invalid_token"' if is_token_given else "")
        detail = "the token is nobody's" if is_token_given else "no bearer token was sent"
        raise ProblemError(Code.UNAUTHORIZED, detail, {"WWW-Authenticate": challenge})

    def _log_and_count(self, scope: Scope, status: int, seconds: float) -> None:
        operation: Operation | None = scope.get("operation")
        caller: Caller | None = scope.get("caller")
        name = operation.name if operation is not None else "none"
        self._services.metrics.requests.labels(name, status).inc()
        self._services.metrics.seconds.labels(name).observe(seconds)
        is_logged = caller is not None or status != _UNAUTHORIZED or self._line_limit.allows("anybody")
        if status == PROBLEM_TYPES[Code.THROTTLED].status or not is_logged:
            self._services.throttle_log.record(caller.name if caller is not None else scope["source"])
            return
        log = _log.debug if scope["path"] in self._public_paths else _log.info
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
    """Return the source that a request counts under: the client, or the trusted proxy if it names no client."""
    peer = peer_of(scope)
    return source_of(client_of(peer, forwarded_for_of(scope), trusted_proxies) or read_address(peer))


def _reply_to(error: Exception) -> Reply:
    if isinstance(error, ProblemError):
        return error.reply
    if isinstance(error, CursorError):
        return problem_reply(Code.INVALID_CURSOR, str(error))
    if isinstance(error, LedgerUnavailable):
        _log.warning("no answer from the books", reason=str(error))
        return unavailable_reply("the books gave no answer; ask again")
    _log.error("defect", exc_info=error)
    return problem_reply(Code.DEFECT, "the request was not answered; the log says why")


async def path_not_found(*_asgi: Any) -> None:
    """Raise ProblemError for a path that has no route."""
    raise ProblemError(Code.NO_SUCH_PATH, "see /openapi.json for the paths; ids in them are percent-encoded")
