"""Who may do what over HTTP, and what is kept of it: by name in the audit log, without secrets in any log."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.networks import read_networks
from shared.settings import Role
from tests.support.operator_api import AUTHORIZED, Api, bearing, operator_api, path_of, settings_for
from worker.database.audit_log import session_subject
from worker.ledger.transaction import Ledger
from worker.players import add_player

pytestmark = pytest.mark.any_server

PLAYER = "/v1/players/anna"
SECRET = "session-that-opens-a-wallet"
SESSION = path_of("integrations", "gpas", "sessions", SECRET)


@pytest.fixture
async def api(engine: AsyncEngine) -> AsyncIterator[Api]:
    """The API on a ledger with player anna."""
    await add_player(engine, "anna", "EUR")
    async with operator_api(settings_for(engine, "klas", "gpas")) as served:
        yield served


async def audited(api: Api, **wanted: Any) -> list[dict[str, Any]]:
    """Return what the API did, as an admin reads it, oldest first."""
    page = await api.get("/v1/audit", headers=bearing(Role.ADMIN), params=wanted)
    return [entry for entry in reversed(page["entries"]) if entry["via"] == "api"]


async def test_support_looks_and_changes_nothing(api: Api) -> None:
    assert await api.get(PLAYER, headers=bearing(Role.SUPPORT))
    refused = await api.put("/v1/players/ben", {"currency": "EUR"}, headers=bearing(Role.SUPPORT))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    assert refused.json()["detail"] == "this takes the role platform; yours is support"
    assert (await api.get("/v1/players/ben", 404))["code"] == "unknown_player"
    (entry,) = await audited(api)
    assert (entry["actor"], entry["action"], entry["outcome"]) == ("support", "access", "forbidden")
    assert entry["subject"] == "player:ben"
    assert entry["detail"] == {"operation": "add_player", "role": "support", "needed": "platform"}


async def test_platform_opens_players_and_sessions_and_does_not_read_the_audit_log(api: Api) -> None:
    platform = bearing(Role.PLATFORM)
    assert (await api.put("/v1/players/ben", {"currency": "EUR"}, headers=platform)).status_code == 201
    assert (await api.put(SESSION, {"player_id": "ben"}, headers=platform)).status_code == 201
    assert (await api.put(SESSION, {"player_id": "anna"}, headers=platform)).status_code == 409
    assert (await api.ask("POST", f"{SESSION}/close", headers=platform)).status_code == 200
    await api.get("/v1/audit", 403, headers=platform)
    session = session_subject("gpas", SECRET)
    written = await audited(api)
    assert {entry["actor"] for entry in written} == {"platform"}
    assert [(e["action"], e["subject"], e["outcome"]) for e in written] == [
        ("player.add", "player:ben", "player"),
        ("session.open", session, "opened"),
        ("session.open", session, "anothers"),
        ("session.close", session, "closed"),
        ("access", "", "forbidden"),
    ]
    assert SECRET not in repr(written)


async def test_audit_log_is_read_in_parts(api: Api) -> None:
    for player_id in ("b", "c", "d"):
        await api.put(f"/v1/players/{player_id}", {"currency": "EUR"}, headers=bearing(Role.PLATFORM))
    await api.put("/v1/players/e", {"currency": "EUR"})
    of_platform = {"actor": "platform", "action": "player.add", "limit": 2}
    admin = bearing(Role.ADMIN)
    first = await api.get("/v1/audit", headers=admin, params=of_platform)
    second = await api.get("/v1/audit", headers=admin, params=of_platform | {"cursor": first["next_cursor"]})
    subjects = [entry["subject"] for entry in (*first["entries"], *second["entries"])]
    assert (subjects, second["next_cursor"]) == (["player:d", "player:c", "player:b"], None)
    foreign = await api.get("/v1/audit", 400, headers=admin, params={"cursor": first["next_cursor"]})
    assert foreign["code"] == "invalid_cursor"
    assert [e["subject"] for e in await audited(api, subject="player:e")] == ["player:e"]
    assert await audited(api, since="2100-01-01T00:00:00+02:00") == []
    for since in ("0001-01-01T00:00:00+23:59", "1969-12-31T00:00:00Z"):
        assert len(await audited(api, since=since)) == 4
    assert await audited(api, since="9999-12-31T23:59:59-23:59") == []
    assert await audited(api, actor="null") == [], "it is a name like any other"
    for wrong in (
        {"since": "2026-01-01"},
        {"since": "null"},
        {"since": "0.5"},
        {"since": "2026-01-01T00:00:00"},
        {"action": "x"},
        {"actor": ""},
    ):
        assert (await api.get("/v1/audit", 400, headers=admin, params=wrong))["code"] == "invalid_query"


async def test_no_session_id_is_in_the_log_whatever_is_asked_about_it(api: Api) -> None:
    with capture_logs() as logged:
        await api.put(SESSION, {"player_id": "anna"})
        await api.get(SESSION)
        await api.put(SESSION, {"player_id": "anna"}, headers=bearing(Role.SUPPORT))
        await api.get(SESSION, 401, headers={"authorization": "Bearer wrong"})
        await api.ask("POST", f"{SESSION}/close")
        await api.ask("DELETE", SESSION)
        await api.get(f"{SESSION}/nowhere", 404)
        await api.get(f"/v1/integration/gpas/session/{SECRET}", 404)
        await api.get(f"{SESSION}%00", 400)
    requests = [entry for entry in logged if entry["event"] == "request"]
    assert [r["status"] for r in requests] == [201, 200, 403, 401, 200, 405, 404, 404, 400]
    assert SECRET not in repr(logged)
    template, subject = (
        "/v1/integrations/{integration}/sessions/{session_id}",
        session_subject("gpas", SECRET),
    )
    assert (requests[0]["path"], requests[0]["subject"]) == (template, subject)
    assert (requests[0]["user"], requests[2]["user"]) == ("token-1", "support")


async def test_bad_tokens_are_throttled_and_right_ones_are_served_all_the_same(api: Api) -> None:
    statuses = [
        (await api.ask("GET", PLAYER, headers={"authorization": f"Bearer guess-{n}"})).status_code for n in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
    throttled = await api.ask("GET", PLAYER, headers={"authorization": "Bearer guess"})
    assert throttled.json()["code"] == "throttled"
    assert 1 <= int(throttled.headers["retry-after"]) <= 60
    assert await api.get(PLAYER, headers=AUTHORIZED)
    assert await api.get("/healthz", headers={"authorization": ""}) == {"status": "up"}


async def test_throttled_requests_are_logged_together(engine: AsyncEngine) -> None:
    with capture_logs() as logged:
        async with operator_api(settings_for(engine)) as api:
            for n in range(30):
                await api.ask("GET", PLAYER, headers={"authorization": f"Bearer guess-{n}"})
    together = [entry for entry in logged if entry["event"] == "refusals throttled"]
    assert sum(entry["requests"] for entry in together) == 20
    refused = [entry["status"] for entry in logged if entry["event"] == "request" and entry["path"] == "none"]
    assert refused == [401] * 10
    assert "guess" not in repr(logged)


async def test_bad_tokens_of_any_number_of_addresses_are_logged_together(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.operator.middleware.UNAUTHORIZED_LINES_MAX", 3)
    with capture_logs() as logged:
        async with operator_api(settings_for(engine)) as api:
            for _ in range(10):
                await api.ask("GET", PLAYER, headers={"authorization": "Bearer guess"})
    together = [entry for entry in logged if entry["event"] == "refusals throttled"]
    assert sum(entry["requests"] for entry in together) == 7
    refused = [entry["status"] for entry in logged if entry["event"] == "request" and entry["path"] == "none"]
    assert refused == [401] * 3


async def test_refused_attempts_of_a_user_do_not_fill_the_audit_log(api: Api) -> None:
    support = bearing(Role.SUPPORT)
    closing = [await api.ask("POST", f"{SESSION}/close", headers=support) for _ in range(15)]
    assert [response.status_code for response in closing] == [403] * 10 + [429] * 5
    assert len(await audited(api, actor="support")) == 10
    assert await api.get(PLAYER, headers=support), "they may still look"


async def test_refused_changes_of_the_platform_do_not_fill_the_audit_log(api: Api) -> None:
    """They are answered as ever; beyond the bound they are counted, and in the process log alone."""
    platform = bearing(Role.PLATFORM)
    with capture_logs() as logged:
        for number in range(9):
            answer = await api.put(SESSION, {"player_id": f"nobody-{number}"}, headers=platform)
            assert answer.json()["code"] == "unknown_player"
            answer = await api.ask("POST", f"{SESSION}/close", headers=platform)
            assert answer.json()["code"] == "unknown_session"
        assert (await api.put(SESSION, {"player_id": "anna"}, headers=platform)).status_code == 201
    written = [entry["outcome"] for entry in await audited(api, actor="platform")]
    assert written == ["unknown_player", "unknown_session"] * 5 + ["opened"]
    exposition = (await api.client.get("/metrics")).text
    assert "credits_operator_unaudited_refusals_total 8.0" in exposition
    assert len([line for line in logged if line["event"] == "request"]) == 19


async def refused_from(api: Api, forwarded_for: str) -> int:
    guess = {"authorization": "Bearer guess", "x-forwarded-for": forwarded_for}
    return (await api.ask("GET", PLAYER, headers=guess)).status_code


async def test_refusals_behind_a_trusted_proxy_are_counted_by_client(engine: AsyncEngine) -> None:
    given = settings_for(engine)
    operator = given.operator.model_copy(update={"trusted_proxies": read_networks("127.0.0.0/8")})
    with capture_logs() as logged:
        async with operator_api(given.model_copy(update={"operator": operator})) as api:
            guesser, other = "198.51.100.9, 192.0.2.7", "192.0.2.8, 127.0.0.2"
            assert [await refused_from(api, guesser) for _ in range(12)] == [401] * 10 + [429] * 2
            assert await refused_from(api, other) == 401
            assert await refused_from(api, "what the client wrote, 192.0.2.7") == 429
            assert await refused_from(api, "no address") == 401  # counted as the proxy's own
    clients = {line["client"] for line in logged if line["event"] == "request" and line["path"] == "none"}
    assert clients == {"192.0.2.7", "192.0.2.8", "127.0.0.1"}


async def test_what_a_client_writes_of_itself_is_not_believed_without_a_proxy(api: Api) -> None:
    statuses = [await refused_from(api, f"192.0.2.{number}") for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2


async def test_readiness_is_looked_for_once_for_all_who_ask(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.operator.app.READINESS_TTL_SECONDS", 60)
    asked = 0
    ask = Ledger.epoch

    async def counted(ledger: Ledger) -> str:
        nonlocal asked
        asked += 1
        return await ask(ledger)

    monkeypatch.setattr(Ledger, "epoch", counted)
    async with operator_api(settings_for(engine)) as api:
        polls = [api.client.get("/readyz") for _ in range(50)]
        answers = [answer.json() for answer in await asyncio.gather(*polls)]
        assert answers == [{"status": "ready"}] * 50
        assert asked == 1


async def test_admin_may_do_what_the_platform_may(api: Api) -> None:
    await api.put(SESSION, {"player_id": "anna"}, headers=bearing(Role.ADMIN))
    (entry,) = await audited(api, actor="admin")
    assert (entry["action"], entry["detail"]) == ("session.open", {"player_id": "anna", "currency": None})
