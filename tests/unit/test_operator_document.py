"""The document says what the API does: it is valid, and made of the same table as the routes."""

import inspect
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from shared.errors import SettingsError
from worker.holders import Added, SessionResult
from worker.operator.handlers import ADDED, SESSION_ENDS
from worker.operator.openapi import document
from worker.operator.operation import NoQuery
from worker.operator.problems import KINDS, Code
from worker.operator.routes import OPERATIONS
from worker.operator.tokens import Tokens

DOCUMENT: dict[str, Any] = document(OPERATIONS)


def test_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_operation_is_in_the_document() -> None:
    documented = {(m.upper(), path) for path, methods in DOCUMENT["paths"].items() for m in methods}
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}
    assert len({operation.name for operation in OPERATIONS}) == len(OPERATIONS)


def test_every_code_is_told_by_an_operation_but_those_of_no_operation() -> None:
    told = {code for operation in OPERATIONS for code in operation.codes}
    assert told == set(Code) - {Code.NO_SUCH_PATH, Code.METHOD_NOT_ALLOWED}
    assert set(DOCUMENT["components"]["schemas"]["Code"]["enum"]) == set(Code)


def test_parameters_of_a_page_are_those_that_are_read() -> None:
    parameters = DOCUMENT["paths"]["/v1/players/{player_id}/transfers"]["get"]["parameters"]
    assert {p["name"]: (p["in"], p["schema"]) for p in parameters if p["in"] == "query"} == {
        "limit": ("query", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}),
        "cursor": ("query", {"type": "string"}),
    }


def test_only_the_processes_own_state_is_told_without_a_token() -> None:
    assert {o.path for o in OPERATIONS if o.is_open} == {"/healthz", "/readyz", "/metrics"}


def test_every_result_has_its_status() -> None:
    assert set(KINDS) == set(Code)
    assert set(ADDED) == set(Added)
    assert set(SESSION_ENDS) == set(SessionResult)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.name)
def test_handler_takes_what_its_operation_says(operation: Any) -> None:
    wanted = ["query"] * (operation.query is not NoQuery) + ["body"] * (operation.body is not None)
    _desk, *taken = inspect.signature(operation.handler).parameters
    assert taken == [*operation.parameters, *wanted]


GOOD = "token-of-the-platform"


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ([], "there are none"),
        ([""], "missing or empty"),
        (["env:NOT_SET_ANYWHERE"], "env:NOT_SET_ANYWHERE"),
        (["file:/nowhere/token"], "file:/nowhere/token"),
        ([GOOD, "hunter2"], "shorter than 16 characters"),
        (["hunter2 and hunter2"], "may have letters"),
        (["hünter2hünter2hünter2"], "may have letters"),
    ],
)
def test_wrong_token_in_the_settings_stops_the_start_and_is_not_shown(tokens: list[str], told: str) -> None:
    with pytest.raises(SettingsError, match=r"\[operator\] tokens") as refused:
        Tokens(tokens)
    assert told in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_token_is_read_from_where_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_TOKEN", GOOD)
    tokens = Tokens(["env:PLATFORM_TOKEN", "literal-token-0123"])
    assert tokens.verify(f"Bearer {GOOD}".encode())
    assert tokens.verify(b"Bearer literal-token-0123")
    assert not tokens.verify(b"Bearer env:PLATFORM_TOKEN")
    assert GOOD not in repr(tokens)
