"""The endpoint of one path: it parses ids, query and body, checks the role, and calls the operation's handler."""

import re
from collections.abc import Sequence
from functools import cache
from types import NoneType
from typing import Any, Final, NoReturn, get_args, get_type_hints
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.errors import LedgerUnavailable
from shared.http import read_body
from shared.ids import refuse_id, refuse_round_id
from shared.settings_types import INTEGRATION_NAME
from worker.database.audit_log import Action, Actor, Via, record, subject_of
from worker.database.faults import outages_as_unavailable
from worker.database.transactions import transaction
from worker.operator.auth import Caller
from worker.operator.operation import NoQuery, Operation, Services
from worker.operator.problems import JSON, Code, ProblemError, Reply, throttled_error

BODY_BYTES_MAX: Final = 65_536

QUERY_FIELDS_MAX: Final = 20
"""How many parameters a query string may have."""

_log: Final = structlog.get_logger()


class Endpoint:
    """An ASGI application for all operations of one path. Raises ProblemError, which the middleware renders."""

    def __init__(self, services: Services, operations: Sequence[Operation]) -> None:
        """Take the services for the handlers, and the path's operations."""
        self._services: Final = services
        self._operations: Final = {operation.method: operation for operation in operations}
        head = ["HEAD"] if "GET" in self._operations else []
        self._allow: Final = ", ".join(sorted([*self._operations, *head]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        reply = await self._handle(Request(scope, receive))
        await response_of(reply)(scope, receive, send)

    async def _handle(self, request: Request) -> Reply:
        operation = self._operations.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            allow = {"Allow": self._allow}
            raise ProblemError(Code.METHOD_NOT_ALLOWED, f"{self._allow} are answered here", allow)
        request.scope["operation"] = operation
        arguments: dict[str, Any] = {name: _path_id(name, raw) for name, raw in request.path_params.items()}
        subject = request.scope["subject"] = subject_of(arguments)
        caller: Caller | None = request.scope.get("caller")
        if caller is not None and not caller.role.includes(operation.role):
            await self._forbid(caller, operation, subject)
        cell, query = _read_query(request, operation)
        if operation.uses_cells:
            arguments["cell"] = cell
        if operation.query is not NoQuery:
            arguments["query"] = query
        if operation.body is not None:
            arguments["body"] = await _read_body(request, operation.body)
        if operation.is_write and caller is not None:
            arguments["by"] = Actor(caller.name, Via.API)
        return await operation.handler(self._services, **arguments)

    async def _forbid(self, caller: Caller, operation: Operation, subject: str) -> NoReturn:
        """Record the attempt in the audit log, and raise ProblemError.

        The throttle limits how often, because the audit log only grows. If the database of the audit log
        does not answer, the attempt is in the process log only.
        """
        if seconds := self._services.throttle.count(f"user {caller.name}"):
            raise throttled_error(seconds)
        detail = {"operation": operation.name, "role": caller.role, "needed": operation.role}
        by = Actor(caller.name, Via.API)
        try:
            with outages_as_unavailable():
                async with transaction(self._services.cells.default) as connection:
                    await record(connection, by, Action.ACCESS, subject, "forbidden", detail)
        except LedgerUnavailable as error:
            self._services.metrics.unaudited_refusals.inc()
            reason = str(error)
            _log.warning("attempt is not in the audit log", user=caller.name, subject=subject, **detail, reason=reason)
        raise ProblemError(Code.FORBIDDEN, f"this takes the role {operation.role}; yours is {caller.role}")


def response_of(reply: Reply) -> Response:
    """Return the reply as a Starlette response."""
    content = reply.content if isinstance(reply.content, bytes) else msgspec.json.encode(reply.content)
    return Response(content, reply.status, {**reply.headers, "content-type": reply.media_type})


def _path_id(name: str, raw: str) -> str:
    """Decode and check an id of the path, in which '/' and '%' too are percent-encoded. Raises ProblemError."""
    try:
        value = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise ProblemError(Code.INVALID_ID, f"{name}: not UTF-8, percent-encoded") from None
    refuse = refuse_round_id if name == "round_id" else refuse_id
    if (reason := refuse(value)) is not None:
        raise ProblemError(Code.INVALID_ID, f"{name}: {reason}")
    if name == "integration" and re.fullmatch(INTEGRATION_NAME, value) is None:
        raise ProblemError(Code.INVALID_ID, f"{name}: a name has the form {INTEGRATION_NAME}")
    return value


def _read_query(request: Request, operation: Operation) -> tuple[str | None, msgspec.Struct]:
    """Return the cell, if one is named, and the operation's own parameters. Raises ProblemError."""
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("latin-1"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError as error:  # whose message repeats no value of the query
        raise ProblemError(Code.INVALID_QUERY, str(error)) from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ProblemError(Code.INVALID_QUERY, "a parameter is given twice")
    cell = given.pop("cell", None) if operation.uses_cells else None
    types = _parameter_types(operation.query)
    if unknown := given.keys() - types.keys():
        raise ProblemError(Code.INVALID_QUERY, f"the query has an unknown parameter {min(unknown)!r}")
    parameters = {name: _convert(name, value, types[name]) for name, value in given.items()}
    return cell, operation.query(**parameters)


def _convert(name: str, text: str, type_: Any) -> Any:
    """Convert a parameter to its type: an int is parsed from its digits, all others as from a string in JSON."""
    try:
        return msgspec.convert(text, type_, strict=get_args(type_)[0] is not int)
    except msgspec.ValidationError as error:  # whose message goes to the client only, not to the log
        raise ProblemError(Code.INVALID_QUERY, f"{error} - at `$.{name}`") from None


@cache
def _parameter_types(query_type: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the parameters' types, all Annotated. None is removed, since an omitted parameter is never null."""
    hints = get_type_hints(query_type, include_extras=True)
    return {name: get_args(hint)[0] if NoneType in get_args(hint) else hint for name, hint in hints.items()}


async def _read_body(request: Request, body_type: type[msgspec.Struct]) -> msgspec.Struct:
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type != JSON:
        raise ProblemError(Code.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {JSON}")
    body = await read_body(request.receive, request.headers, BODY_BYTES_MAX)
    if body is None:
        raise ProblemError(Code.BODY_TOO_LARGE, f"the body exceeds {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(body, type=body_type)
    except msgspec.ValidationError as error:
        raise ProblemError(Code.INVALID_BODY, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProblemError(Code.MALFORMED_JSON, "the body is not JSON") from None
