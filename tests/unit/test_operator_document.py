"""The document says what the API does: it is valid, and made of the same table as the routes."""

import inspect
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared.cell_places import CELL_NAME
from shared.settings import Role
from worker.operator.handlers import ADDED_STATUS, SESSION_REPLIES
from worker.operator.openapi import document
from worker.operator.operation import NoQuery
from worker.operator.problems import PROBLEM_TYPES, Code
from worker.operator.routes import OPERATIONS
from worker.players import Added, SessionResult

DOCUMENT: dict[str, Any] = document(OPERATIONS)


def test_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_operation_is_in_the_document() -> None:
    documented = {(m.upper(), path) for path, methods in DOCUMENT["paths"].items() for m in methods}
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


def test_every_code_is_told_by_an_operation_but_those_of_no_operation() -> None:
    told = {code for operation in OPERATIONS for code in operation.problem_codes}
    assert told == set(Code) - {Code.NO_SUCH_PATH, Code.METHOD_NOT_ALLOWED}
    assert set(DOCUMENT["components"]["schemas"]["Code"]["enum"]) == set(Code)


def test_parameters_of_a_page_are_those_that_are_read() -> None:
    parameters = DOCUMENT["paths"]["/v1/players/{player_id}/transfers"]["get"]["parameters"]
    assert {p["name"]: (p["in"], p["schema"]) for p in parameters if p["in"] == "query"} == {
        "limit": ("query", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
        "cursor": ("query", {"type": "string", "pattern": "^[A-Za-z0-9_-]{32}$"}),
        "cell": ("query", {"type": "string", "pattern": CELL_NAME}),
    }


def test_only_the_processes_own_state_is_told_without_a_token() -> None:
    assert {o.path for o in OPERATIONS if o.is_public} == {"/healthz", "/readyz", "/metrics"}


def test_every_result_has_its_status() -> None:
    assert set(PROBLEM_TYPES) == set(Code)
    assert set(ADDED_STATUS) == set(Added)
    assert set(SESSION_REPLIES) == set(SessionResult)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_handler_takes_what_its_operation_says(operation: Any) -> None:
    wanted = ["query"] * (operation.query is not NoQuery) + ["body"] * (operation.body is not None)
    _services, *taken = inspect.signature(operation.handler).parameters
    rest = ["by"] * operation.is_write + ["cell"] * operation.uses_cells
    assert taken == [*operation.parameters, *wanted, *rest]


def test_who_reads_changes_nothing_and_only_an_admin_reads_who_did_what() -> None:
    roles = {operation.name: operation.role for operation in OPERATIONS}
    assert {name for name, role in roles.items() if role is Role.ADMIN} == {"list_audit"}
    assert {o.name for o in OPERATIONS if o.is_write} == {n for n, r in roles.items() if r is Role.PLATFORM}


def test_document_says_which_role_each_operation_needs() -> None:
    needed = {
        operation["operationId"]: operation["security"]
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
    }
    assert needed == {o.name: [] if o.is_public else [{"token": [o.role]}] for o in OPERATIONS}
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            needs = [needed["token"][0] for needed in operation["security"]]
            assert ("403" in operation["responses"]) is (needs in (["platform"], ["admin"]))
            assert ({"401", "429"} <= set(operation["responses"])) is bool(needs)
