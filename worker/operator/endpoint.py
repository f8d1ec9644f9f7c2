"""A request to one path: its ids, query and body become values, the operation's handler answers them."""

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
from worker.operator.problems import JSON, Code, Refused, Reply, throttled

BODY_BYTES_MAX: Final = 65_536
QUERY_FIELDS_MAX: Final = 20

_log: Final = structlog.get_logger()


class Endpoint:
    """An ASGI application for all operations of one path. Raises Refused."""

    def __init__(self, desk: Services, operations: Sequence[Operation]) -> None:
        """Take what the handlers work with, and the path's operations."""
        self._desk: Final = desk
        self._operations: Final = {operation.method: operation for operation in operations}
        head = ["HEAD"] if "GET" in self._operations else []
        self._allow: Final = ", ".join(sorted([*self._operations, *head]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        reply = await self._answer(Request(scope, receive))
        await response_of(reply)(scope, receive, send)

    async def _answer(self, request: Request) -> Reply:
        operation = self._operations.get("GET" if request.method == "HEAD" else request.method)
        if operation is None:
            allow = {"Allow": self._allow}
            raise Refused(Code.METHOD_NOT_ALLOWED, f"{self._allow} are answered here", allow)
        request.scope["operation"] = operation
        asked: dict[str, Any] = {name: _id(name, raw) for name, raw in request.path_params.items()}
        subject = request.scope["subject"] = subject_of(asked)
        caller: Caller | None = request.scope.get("caller")
        if caller is not None and not caller.role.includes(operation.role):
            await self._forbid(caller, operation, subject)
        cell, query = _query(request, operation)
        if operation.asks_cells:
            asked["cell"] = cell
        if operation.query is not NoQuery:
            asked["query"] = query
        if operation.body is not None:
            asked["body"] = await _body(request, operation.body)
        if operation.changes and caller is not None:
            asked["by"] = Actor(caller.name, Via.API)
        return await operation.handler(self._desk, **asked)

    async def _forbid(self, caller: Caller, operation: Operation, subject: str) -> NoReturn:
        """Refuse, and write it down, but no more often than the throttle allows: the log only grows.

        Where the books of the audit log give no answer, the attempt is in the process log alone.
        """
        if seconds := self._desk.throttle.refuse(f"user {caller.name}"):
            raise throttled(seconds)
        detail = {"operation": operation.name, "role": caller.role, "needed": operation.role}
        by = Actor(caller.name, Via.API)
        try:
            with outages_as_unavailable():
                async with transaction(self._desk.cells.default) as connection:
                    await record(connection, by, Action.ACCESS, subject, "forbidden", detail)
        except LedgerUnavailable as error:
            self._desk.metrics.unaudited_refusals.inc()
            reason = str(error)
            _log.warning("attempt is not in the audit log", user=caller.name, subject=subject, **detail, reason=reason)
        raise Refused(Code.FORBIDDEN, f"this takes the role {operation.role}; yours is {caller.role}")


def response_of(reply: Reply) -> Response:
    """Return a reply as Starlette sends it."""
    content = reply.content if isinstance(reply.content, bytes) else msgspec.json.encode(reply.content)
    return Response(content, reply.status, {**reply.headers, "content-type": reply.media_type})


def _id(name: str, raw: str) -> str:
    """Return an id of the path, which arrives as it was sent: percent-encoded, '/' and '%' included."""
    try:
        value = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Refused(Code.INVALID_ID, f"{name}: not UTF-8, percent-encoded") from None
    refuse = refuse_round_id if name == "round_id" else refuse_id
    if (reason := refuse(value)) is not None:
        raise Refused(Code.INVALID_ID, f"{name}: {reason}")
    if name == "integration" and re.fullmatch(INTEGRATION_NAME, value) is None:
        raise Refused(Code.INVALID_ID, f"{name}: a name has the form {INTEGRATION_NAME}")
    return value


def _query(request: Request, operation: Operation) -> tuple[str | None, msgspec.Struct]:
    """Return the cell, where one is named, and the operation's own parameters. Raises Refused."""
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("latin-1"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError as error:  # which repeats no value
        raise Refused(Code.INVALID_QUERY, str(error)) from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise Refused(Code.INVALID_QUERY, "a parameter is given twice")
    cell = given.pop("cell", None) if operation.asks_cells else None
    wanted = operation.query
    types = _parameter_types(wanted)
    if unknown := given.keys() - types.keys():
        raise Refused(Code.INVALID_QUERY, f"the query has an unknown parameter {min(unknown)!r}")
    return cell, wanted(**{name: _parameter(name, value, types[name]) for name, value in given.items()})


def _parameter(name: str, text: str, type_: Any) -> Any:
    """Return a parameter as its type. Only a number is written unlike JSON's."""
    try:
        return msgspec.convert(text, type_, strict=get_args(type_)[0] is not int)
    except msgspec.ValidationError as error:  # which goes to the sender alone, and to no log
        raise Refused(Code.INVALID_QUERY, f"{error} - at `$.{name}`") from None


@cache
def _parameter_types(wanted: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the parameters' types, all Annotated, without None: what may be left out is never null."""
    hints = get_type_hints(wanted, include_extras=True)
    return {name: get_args(hint)[0] if NoneType in get_args(hint) else hint for name, hint in hints.items()}


async def _body(request: Request, wanted: type[msgspec.Struct]) -> msgspec.Struct:
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_type != JSON:
        raise Refused(Code.UNSUPPORTED_MEDIA_TYPE, f"the content type must be {JSON}")
    body = await read_body(request.receive, request.headers, BODY_BYTES_MAX)
    if body is None:
        raise Refused(Code.BODY_TOO_LARGE, f"the body exceeds {BODY_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(body, type=wanted)
    except msgspec.ValidationError as error:
        raise Refused(Code.INVALID_BODY, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refused(Code.MALFORMED_JSON, "the body is not JSON") from None
