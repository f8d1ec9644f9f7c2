"""Whoever asks while the books give no answer, or too many ask, is told at once to ask again."""

import asyncio

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.operator_api import operator_api, settings_for
from tests.support.servers import Servers
from worker.operator import middleware
from worker.players import add_player

pytestmark = [pytest.mark.own_servers("postgres"), pytest.mark.any_server]

PLAYER = "/v1/players/anna"


def assert_says_to_ask_again(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert response.headers["retry-after"] == "1"
    assert response.json()["detail"] == "the books gave no answer; ask again"


async def test_database_that_is_away_is_told_and_its_return_is_noticed(postgres: AsyncEngine, servers: Servers) -> None:
    await add_player(postgres, "anna", "EUR")
    async with operator_api(settings_for(postgres)) as api:
        assert await api.get(PLAYER)
        await asyncio.to_thread(servers.postgres.kill)
        try:
            for method, path in (("GET", PLAYER), ("GET", f"{PLAYER}/transfers"), ("GET", "/readyz")):
                assert_says_to_ask_again(await api.ask(method, path))
            assert_says_to_ask_again(await api.put("/v1/players/ben", {"currency": "EUR"}))
            assert await api.get("/healthz") == {"status": "up"}
        finally:
            await asyncio.to_thread(servers.postgres.start)
        assert await api.get(PLAYER)
        assert (await api.put("/v1/players/ben", {"currency": "EUR"})).status_code == 201


async def test_wait_for_a_connection_is_bounded_and_no_defect(postgres: AsyncEngine) -> None:
    narrow = settings_for(postgres, pool_connections_max=1, statement_seconds_max=1)
    async with operator_api(narrow) as api, postgres.connect() as holding:
        await holding.execute(text("LOCK TABLE players"))
        waited = [api.put(f"/v1/players/{n}", {"currency": "EUR"}) for n in range(3)]
        for response in await asyncio.gather(*waited):
            assert_says_to_ask_again(response)
        await holding.rollback()
        assert (await api.put("/v1/players/ben", {"currency": "EUR"})).status_code == 201


async def test_more_requests_than_can_be_held_are_told_to_ask_again_at_once(
    postgres: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "IN_FLIGHT_MAX", 2)
    async with operator_api(settings_for(postgres)) as api, postgres.connect() as holding:
        await holding.execute(text("LOCK TABLE players"))
        paths = [f"/v1/players/{n}" for n in range(3)]
        asked = [asyncio.create_task(api.put(path, {"currency": "EUR"})) for path in paths]
        (first,), _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert_says_to_ask_again(first.result())
        await holding.rollback()
        statuses = [response.status_code for response in await asyncio.gather(*asked)]
    assert sorted(statuses) == [201, 201, 503]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_locked_file_is_told_and_its_release_is_noticed(engine: AsyncEngine) -> None:
    async with operator_api(settings_for(engine, statement_seconds_max=1)) as api:
        async with engine.begin():  # holds the file's lock
            assert_says_to_ask_again(await api.put(PLAYER, {"currency": "EUR"}))
        assert (await api.put(PLAYER, {"currency": "EUR"})).status_code == 201
