"""Whoever asks wrongly, or without a right to ask, learns what is wrong and nothing else."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.errors import SettingsError
from shared.settings import LedgerSettings, Role
from tests.support.credits import win
from tests.support.operator_api import (
    AUTHORIZED,
    SECOND_TOKEN,
    TOKEN,
    Api,
    bearing,
    operator_api,
    path_of,
    settings_for,
)
from worker.database.engine import create_engine
from worker.database.schema import players, sessions, transfers, wallets
from worker.ledger.transaction import Ledger
from worker.operator.endpoint import BODY_BYTES_MAX
from worker.operator.problems import PROBLEM_TYPES, Code
from worker.players import add_player, close_session, open_session

pytestmark = pytest.mark.any_server

PLAYER = "/v1/players/anna"
KLAS = "/v1/integrations/klas"


@pytest.fixture
async def api(engine: AsyncEngine) -> AsyncIterator[Api]:
    """The API on a ledger with player anna, an open and a closed session, and a row that nobody can read."""
    await add_player(engine, "anna", "EUR")
    for session in ("open", "ended"):
        await open_session(engine, "klas", session, "anna")
    await close_session(engine, "klas", "ended")
    async with engine.begin() as connection:
        row = win("unreadable")
        await connection.execute(
            transfers.insert().values(
                **{name: getattr(row, name) for name in ("integration", "provider_tx_id", "player_id")},
                id=uuid4(),
                currency="EUR",
                amount_minor=0,
                real_minor=0,
                bonus_minor=0,
                kind="win",
                real_balance_minor=0,
                bonus_balance_minor=0,
                round_closed=False,
                details="no JSON: hunter2",
                posted_at=datetime.now(UTC),
            )
        )
    async with operator_api(settings_for(engine, "klas")) as served:
        yield served


JSON = {"content-type": "application/json"}

BAD_BODIES: list[Any] = [{}, [], 7, {"currency": 7}, {"currency": None}, {"currency": "EUR", "balance": 5}]

PROVOKED: Mapping[Code, list[tuple[str, str, dict[str, Any]]]] = {
    Code.UNAUTHORIZED: [("GET", PLAYER, {"headers": {"authorization": "Bearer wrong"}})],
    Code.FORBIDDEN: [
        ("PUT", PLAYER, {"json": {"currency": "JPY"}, "headers": bearing(Role.SUPPORT)}),
        ("PUT", f"{KLAS}/sessions/s", {"json": {"player_id": "anna"}, "headers": bearing(Role.SUPPORT)}),
        ("POST", f"{KLAS}/sessions/open/close", {"headers": bearing(Role.SUPPORT)}),
        ("GET", "/v1/audit", {"headers": bearing(Role.PLATFORM)}),
    ],
    Code.NO_SUCH_PATH: [
        ("GET", "/", {}),
        ("GET", "/v1/players", {}),
        ("GET", "/v1/players/", {}),
        ("GET", f"{PLAYER}/", {}),
        ("GET", f"{PLAYER}/wallets/x", {}),
        ("GET", "/%68ealthz", {}),
    ],
    Code.METHOD_NOT_ALLOWED: [
        ("DELETE", PLAYER, {}),
        ("POST", "/healthz", {}),
        ("GET", f"{KLAS}/sessions/open/close", {}),
    ],
    Code.INVALID_ID: [
        ("GET", "/v1/players/%00", {}),
        ("GET", "/v1/players/%FF", {}),
        ("GET", "/v1/players/" + "x" * 129, {}),
        ("PUT", "/v1/players/a%0Ab", {"json": {"currency": "EUR"}}),
        ("GET", "/v1/transfers/no-uuid", {}),
        ("GET", f"{KLAS}/rounds/" + "x" * 1_001, {}),
        ("GET", f"{KLAS}/rounds/a%00b", {}),
    ],
    Code.INVALID_QUERY: [
        *(("GET", f"{PLAYER}/transfers?limit={limit}", {}) for limit in ("0", "501", "-1", "x", "", "1.5")),
        ("GET", f"{PLAYER}/transfers?limt=5", {}),
        ("GET", f"{PLAYER}/transfers?limit=5&limit=6", {}),
        ("GET", f"{PLAYER}/transfers?cursor=%FF", {}),
        ("GET", f"{PLAYER}/transfers?" + "a=1&" * 50, {}),
        ("GET", f"{PLAYER}?x", {}),
        ("GET", "/healthz?x=1", {}),
        ("GET", f"{PLAYER}?cell=Main", {}),
        ("GET", "/v1/audit?cell=", {}),
    ],
    Code.UNKNOWN_CELL: [
        ("GET", f"{PLAYER}?cell=brand2", {}),
        ("PUT", f"{PLAYER}?cell=brand2", {"json": {"currency": "EUR"}}),
    ],
    Code.INVALID_CURSOR: [("GET", f"{PLAYER}/transfers?cursor=x", {})],
    Code.MALFORMED_JSON: [
        ("PUT", PLAYER, {"content": body, "headers": JSON})
        for body in (b"", b"{", b'{"currency":"EUR"}x', b'{"currency":"\xff"}', b"{'currency': 'EUR'}")
    ],
    Code.BODY_TOO_LARGE: [("PUT", PLAYER, {"content": b" " * (BODY_BYTES_MAX + 1), "headers": JSON})],
    Code.UNSUPPORTED_MEDIA_TYPE: [
        ("PUT", PLAYER, {"data": {"currency": "EUR"}}),
        ("PUT", PLAYER, {"content": b"{}", "headers": {"content-type": "text/json"}}),
    ],
    Code.INVALID_BODY: [("PUT", PLAYER, {"json": body}) for body in BAD_BODIES],
    Code.UNKNOWN_CURRENCY: [
        ("PUT", PLAYER, {"json": {"currency": currency}}) for currency in ("BTC", "eur", "", "E" * 1_000)
    ],
    Code.UNKNOWN_INTEGRATION: [("GET", "/v1/integrations/klass/transfers/w", {})],
    Code.UNKNOWN_PLAYER: [
        ("GET", f"/v1/players/nobody{what}", {}) for what in ("", "/wallets", "/balances", "/transfers")
    ],
    Code.UNKNOWN_SESSION: [
        ("GET", f"{KLAS}/sessions/none", {}),
        ("POST", f"{KLAS}/sessions/none/close", {}),
    ],
    Code.UNKNOWN_TRANSFER: [("GET", "/v1/transfers/01a1fe25-4589-77e0-bd12-b262aa440f3e", {})],
    Code.UNKNOWN_ROUND: [("GET", f"{KLAS}/rounds/none", {})],
    Code.NOT_PAID: [("GET", f"{KLAS}/transfers/none", {})],
    Code.NO_WALLETS: [("PUT", f"{KLAS}/sessions/s", {"json": {"player_id": "anna", "currency": "JPY"}})],
    Code.SESSION_ENDED: [("PUT", f"{KLAS}/sessions/ended", {"json": {"player_id": "anna"}})],
    Code.SESSION_OF_ANOTHER: [("PUT", f"{KLAS}/sessions/open", {"json": {"player_id": "ben"}})],
    Code.DEFECT: [("GET", f"{KLAS}/transfers/unreadable", {})],
}
"""For each code, requests that provoke it; outages, too many refusals and several cells have their own."""


def test_every_problem_is_provoked() -> None:
    assert set(PROVOKED) == set(Code) - {Code.UNAVAILABLE, Code.THROTTLED, Code.SEVERAL_CELLS}


@pytest.mark.parametrize("code", PROVOKED)
async def test_problem_has_its_status_and_code(api: Api, engine: AsyncEngine, code: Code) -> None:
    if code is Code.SESSION_OF_ANOTHER:
        await add_player(engine, "ben", "EUR")
    for method, path, request in PROVOKED[code]:
        response = await api.ask(method, path, **request)
        problem = response.json()
        assert (problem["code"], problem["status"]) == (code, PROBLEM_TYPES[code].status), (method, path)
        assert response.status_code == problem["status"]
        assert response.headers["content-type"] == "application/problem+json"
        assert (problem["type"], problem["title"]) == (f"urn:credits:problem:{code}", PROBLEM_TYPES[code].title)
        assert "hunter2" not in response.text
        assert "Traceback" not in response.text


async def test_method_that_is_not_answered_is_told_with_those_that_are(api: Api) -> None:
    for path, allowed in ((PLAYER, "GET, HEAD, PUT"), (f"{KLAS}/sessions/s/close", "POST")):
        assert (await api.ask("DELETE", path)).headers["allow"] == allowed


async def test_body_that_never_ends_is_read_to_its_bound_only(api: Api) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * BODY_BYTES_MAX:
            sent += 1_024
            yield b" " * 1_024

    refused = await api.ask("PUT", PLAYER, content=endless(), headers=JSON)
    assert refused.json()["code"] == "body_too_large"


async def test_nothing_is_posted_by_looking(api: Api, engine: AsyncEngine) -> None:
    for method, path, request in (each for many in PROVOKED.values() for each in many):
        await api.ask(method, path, **request)
    async with engine.connect() as connection:
        counts = [
            (await connection.execute(select(func.count()).select_from(table))).scalar_one()
            for table in (players, wallets, sessions, transfers)
        ]
    assert counts == [1, 2, 2, 1]


WRONG_TOKENS = {
    "none": None,
    "empty": "",
    "another": "Bearer token-of-somebody",
    "no scheme": TOKEN,
    "other scheme": f"Basic {TOKEN}",
    "a part": f"Bearer {TOKEN[:-1]}",
    "more": f"Bearer {TOKEN}x",
    "both": f"Bearer {TOKEN} {SECOND_TOKEN}",
    "not ascii": "Bearer ü",
    "only the scheme": "Bearer",
}


@pytest.mark.parametrize("authorization", WRONG_TOKENS.values(), ids=WRONG_TOKENS)
async def test_without_a_right_token_nobody_learns_or_changes_anything(api: Api, authorization: str | None) -> None:
    headers = [(b"authorization", authorization.encode())] if authorization is not None else []
    for method, path in (("GET", PLAYER), ("PUT", "/v1/players/ben"), ("GET", "/v1/nowhere"), ("GET", "/")):
        response = await api.client.request(method, path, headers=headers)
        assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
        assert response.headers["www-authenticate"].startswith('Bearer realm="credits"')
    assert (await api.get("/v1/players/ben", 404))["code"] == "unknown_player"


async def test_two_tokens_in_one_request_are_none(api: Api) -> None:
    headers = [("authorization", f"Bearer {token}") for token in (TOKEN, SECOND_TOKEN)]
    assert (await api.client.get(PLAYER, headers=headers)).status_code == 401


async def test_body_of_who_may_not_ask_is_not_read(api: Api) -> None:
    chunks = iter([b"{", b"}"])

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    assert (await api.client.put(PLAYER, content=body())).status_code == 401
    assert list(chunks) == [b"{", b"}"]


async def test_token_is_replaced_without_a_pause(api: Api) -> None:
    for authorization in (f"Bearer {TOKEN}", f"Bearer {SECOND_TOKEN}", f"bearer  {TOKEN}"):
        assert await api.get(PLAYER, headers={"authorization": authorization})


async def test_log_names_requests_but_no_token(api: Api) -> None:
    with capture_logs() as logged:
        await api.get(PLAYER)
        await api.get(f"{PLAYER}?access_token={TOKEN}", 400)
        await api.get(f"{KLAS}/transfers/unreadable", 500)
        await api.get(PLAYER, 401, headers={"authorization": f"Basic {TOKEN}"})
    requests = [(e["subject"], e["user"], e["status"]) for e in logged if e["event"] == "request"]
    assert requests == [
        ("player:anna", "token-1", 200),
        ("player:anna", "token-1", 400),
        ("transfer:klas:unreadable", "token-1", 500),
        ("", "", 401),
    ]
    assert [e["event"] for e in logged if e["log_level"] == "error"] == ["defect"]
    assert TOKEN not in repr(logged)


async def test_tables_of_no_version_stop_the_start(database_url: str) -> None:
    engine = create_engine(LedgerSettings(database_url=database_url))
    with pytest.raises(SettingsError, match="python -m worker migrate"):
        async with operator_api(settings_for(engine)):
            pass
    await engine.dispose()


async def test_every_operation_answers_head_as_it_answers_get(api: Api, engine: AsyncEngine) -> None:
    await Ledger(engine).post([win("w", round_id="r")])
    for path in (PLAYER, path_of("integrations", "klas", "rounds", "r"), "/healthz", "/openapi.json"):
        assert (await api.client.head(path, headers=AUTHORIZED)).status_code == 200
