"""What holds for every request: the token comes first, no fault shows itself, all is logged and counted."""

import time
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import CursorError, LedgerUnavailable
from worker.operator.endpoint import response_of
from worker.operator.metrics import OperatorMetrics
from worker.operator.problems import Code, Refused, Reply, refusal, unavailable
from worker.operator.tokens import Tokens

IN_FLIGHT_MAX: Final = 500
PATH_CHARACTERS_LOGGED: Final = 500

_log = structlog.get_logger()


class Front:
    """The middleware around all routes."""

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens, open_paths: frozenset[str], metrics: OperatorMetrics
    ) -> None:
        """Take the routes, who may ask, and what is answered to anybody."""
        self._app: Final = app
        self._tokens: Final = tokens
        self._open_paths: Final = open_paths
        self._metrics: Final = metrics
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Ids may hold a '/': routes match the path as it was sent, and the endpoint decodes each id.
        scope["path"] = scope["raw_path"].decode("latin-1")
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self._in_flight += 1
        try:
            await self._answer(scope, receive, sending)
        except ClientDisconnect:
            return  # there is nobody to answer
        finally:
            self._in_flight -= 1
        self._note(scope, status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["path"] not in self._open_paths:
                self._admit(scope)
            await self._app(scope, receive, send)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001  (a client never sees a trace)
            await response_of(_reply_to(error))(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1 or not self._tokens.verify(given[0]):
            challenge = 'Bearer realm="credits"' + (', error="invalid_token"' if given else "")
            detail = "the token is not one of [operator] tokens" if given else "no bearer token was sent"
            raise Refused(Code.UNAUTHORIZED, detail, {"WWW-Authenticate": challenge})
        if self._in_flight > IN_FLIGHT_MAX:
            raise LedgerUnavailable(f"more than {IN_FLIGHT_MAX} requests at once")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        operation = scope.get("operation", "none")
        self._metrics.requests.labels(operation, status).inc()
        self._metrics.seconds.labels(operation).observe(seconds)
        log = _log.debug if scope["path"] in self._open_paths else _log.info
        # Without the query, where somebody may have put a token.
        log(
            "request",
            method=scope["method"],
            path=scope["path"][:PATH_CHARACTERS_LOGGED],
            operation=operation,
            status=status,
            ms=round(seconds * 1_000, 1),
        )


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
