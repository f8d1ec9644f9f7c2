"""Builds the OpenAPI 3.1 document from the table of operations and the types that it names."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from shared.cell_places import CELL_NAME
from shared.ids import ID_CHARACTERS_MAX, ID_JSON_PATTERN, ROUND_ID_CHARACTERS_MAX, ROUND_ID_JSON_PATTERN
from shared.settings_types import INTEGRATION_NAME
from worker.database.audit_log import Action
from worker.operator.operation import Operation
from worker.operator.problems import JSON, PROBLEM_JSON, PROBLEM_TYPES, Code, Problem

API_VERSION: Final = "1.0"
_REF: Final = "#/components/schemas/{name}"

_DESCRIPTION: Final = (
    "Players, sessions, transfers and rounds. Ids are percent-encoded in the path, '/' and '%' included;"
    " the ids '.' and '..' can't be used, since clients remove them from a path. Every creation may be"
    " repeated. Amounts have minor units for programs and a text for people. Where there are several cells,"
    " a read searches all of them, and the reply names the cell that it is from: 409 `several_cells` if several"
    " have it, or if a change must name its cell; 503 if a cell that may have it did not answer."
)

_ROLES: Final = (
    "A user's token. Each user has a role: `support` reads players, sessions and transfers; `platform` also adds"
    " players, and opens and closes sessions; `admin` also reads the audit log."
)

_PARAMETERS: Final = {
    "player_id": "The operator's own id of the player.",
    "transfer_id": "Our own id of the transfer, a UUID.",
    "integration": "As in [integrations.NAME].",
    "provider_tx_id": "The provider's id of the win.",
    "round_id": "The provider's id of the round.",
    "session_id": "The provider's wallet session.",
}


def _path_id_schema(pattern: str, characters_max: int) -> Mapping[str, Any]:
    """Return the schema of an id in a path. It excludes `.` and `..`, which clients remove as dot segments."""
    without_dot_segments = pattern.replace("^", r"^(?!\.{1,2}$)", 1)
    return {"type": "string", "minLength": 1, "maxLength": characters_max, "pattern": without_dot_segments}


_ID: Final = _path_id_schema(ID_JSON_PATTERN, ID_CHARACTERS_MAX)
_PATH_SCHEMAS: Final = {
    "round_id": _path_id_schema(ROUND_ID_JSON_PATTERN, ROUND_ID_CHARACTERS_MAX),
    "transfer_id": {"type": "string", "format": "uuid"},
    "integration": {"type": "string", "pattern": INTEGRATION_NAME},
}

_CELL_PARAMETER: Final = {
    "name": "cell",
    "in": "query",
    "description": "The cell to read or to change: NAME as in [cells.NAME], or `main`.",
    "schema": {"type": "string", "pattern": CELL_NAME},
}

_IN_CELL: Final = {
    "properties": {
        "cell": {"type": "string", "description": "Where there are several cells: the one that the reply is from."}
    }
}

_HEADERS: Final = {
    401: {"WWW-Authenticate": "The scheme, Bearer"},
    429: {"Retry-After": "Seconds until the limit on refused requests ends"},
    503: {"Retry-After": "Seconds after which to retry"},
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the OpenAPI document of these operations."""
    types = {t for o in operations for t in (*o.responses.values(), o.body) if t not in {None, bytes}}
    ordered = sorted({*types, Action, Problem}, key=lambda t: t.__name__)
    _, schemas = msgspec.json.schema_components(ordered, ref_template=_REF)
    by_path = groupby(sorted(operations, key=lambda o: o.path), key=lambda o: o.path)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Credit processor: operator API",
            "version": API_VERSION,
            "description": _DESCRIPTION,
        },
        "paths": {path: {o.method.lower(): _operation(o) for o in same} for path, same in by_path},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _ROLES}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": "" if operation.is_public else f"For the role `{operation.role}`, and those that include it.",
        "security": [] if operation.is_public else [{"token": [operation.role.value]}],
        "parameters": [
            *map(_path_parameter, operation.parameters),
            *_query_parameters(operation.query),
            *([_CELL_PARAMETER] if operation.uses_cells else []),
        ],
        "responses": {**_responses(operation), **_problems(operation.problem_codes)},
    }
    if operation.body is not None:
        content["requestBody"] = {"required": True, "content": {JSON: {"schema": _reference(operation.body)}}}
    return content


def _responses(operation: Operation) -> dict[str, Any]:
    return {
        str(status): _response(status, content, in_cell=operation.uses_cells)
        for status, content in operation.responses.items()
    }


def _response(status: int, content: Any, *, in_cell: bool) -> dict[str, Any]:
    description = "New" if status == 201 else "The answer"
    if content is bytes:
        return {"description": description, "content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}
    schema = {"allOf": [_reference(content), _IN_CELL]} if in_cell else _reference(content)
    return {"description": description, "content": {JSON: {"schema": schema}}}


def _problems(codes: frozenset[Code]) -> dict[str, Any]:
    by_status: dict[int, list[Code]] = {}
    for code in sorted(codes):
        by_status.setdefault(PROBLEM_TYPES[code].status, []).append(code)
    return {str(status): _problem(status, same) for status, same in sorted(by_status.items())}


def _problem(status: int, codes: Sequence[Code]) -> dict[str, Any]:
    described = "; ".join(f"`{code}`: {PROBLEM_TYPES[code].title}" for code in codes)
    exact = {"properties": {"status": {"const": status}, "code": {"enum": [str(code) for code in codes]}}}
    schema = {"allOf": [_reference(Problem), exact]}
    headers = {
        name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.get(status, {}).items()
    }
    return {"description": described, "headers": headers, "content": {PROBLEM_JSON: {"schema": schema}}}


def _path_parameter(name: str) -> dict[str, Any]:
    schema = _PATH_SCHEMAS.get(name, _ID)
    described = {"description": _PARAMETERS[name], "schema": schema}
    return {"name": name, "in": "path", "required": True, **described}


def _query_parameters(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    _, schemas = msgspec.json.schema_components([query], ref_template=_REF)
    properties: Mapping[str, Any] = schemas[query.__name__]["properties"]
    return [_query_parameter(name, schema) for name, schema in properties.items()]


def _query_parameter(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    # The type of an optional parameter allows None, which a URL can't express: the first alternative is the value's.
    value_schema = dict(schema.get("anyOf", [schema])[0])
    return {"name": name, "in": "query", "description": value_schema.pop("description"), "schema": value_schema}


def _reference(type_: Any) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([type_], ref_template=_REF)
    return schema
