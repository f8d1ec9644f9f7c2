"""The operator API over two cells: where a thing is, and never 'no such' of what could not be looked for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from shared.settings import CellSettings, LedgerSettings, Role, Settings
from tests.integration.conftest import EmptyFile, engine_of
from tests.support.commands import ON_SQLITE
from tests.support.credits import win
from tests.support.operator_api import Api, bearing, operator_api, path_of, settings_for
from worker.integrations import assign
from worker.ledger.transaction import Ledger
from worker.players import add_player

pytestmark = [ON_SQLITE, pytest.mark.any_server]

AWAY = "postgresql+asyncpg://user:hunter2@127.0.0.1:1/db"
"""A database that nobody is at."""


def settings_of_both(main: AsyncEngine, brand2_url: str) -> Settings:
    """Return settings with klas in `main` and gpas in `brand2`."""
    settings = settings_for(main)
    return settings.model_copy(
        update={
            "cells": {"brand2": CellSettings(ledger=LedgerSettings(database_url=brand2_url))},
            "integrations": {"klas": {"provider": "klas"}, "gpas": {"provider": "gpas", "cell": "brand2"}},
        }
    )


@pytest.fixture
async def brand2(tmp_path: Path, empty_file: EmptyFile, database_url: str) -> AsyncIterator[AsyncEngine]:
    """The books of the other cell, with a player of the same id and one of its own."""
    del database_url
    await empty_file.copy_to(tmp_path / "brand2.db")
    async with engine_of(f"sqlite+aiosqlite:///{tmp_path}/brand2.db") as engine:
        for player_id in ("anna", "ben"):
            await add_player(engine, player_id, "EUR")
        await Ledger(engine).post([win("in-brand2", integration="gpas", round_id="r")])
        yield engine


@pytest.fixture
async def api(engine: AsyncEngine, brand2: AsyncEngine) -> AsyncIterator[Api]:
    async with _served(engine, brand2.url.render_as_string()) as served:
        yield served


@asynccontextmanager
async def _served(engine: AsyncEngine, brand2_url: str) -> AsyncIterator[Api]:
    await add_player(engine, "anna", "EUR")
    await Ledger(engine).post([win("in-main")])
    async with operator_api(settings_of_both(engine, brand2_url)) as served:
        yield served


async def test_what_is_unique_is_found_in_whichever_cell_it_is(api: Api) -> None:
    for integration, tx_id, cell in (("klas", "in-main", "main"), ("gpas", "in-brand2", "brand2")):
        paid = await api.get(path_of("integrations", integration, "transfers", tx_id))
        assert (paid["cell"], paid["posted"]) == (cell, True)
        by_our_id = await api.get(path_of("transfers", paid["transfer"]["transfer_id"]))
        assert by_our_id == paid
    assert (await api.get(path_of("integrations", "gpas", "rounds", "r")))["cell"] == "brand2"
    assert (await api.get("/v1/players/ben"))["cell"] == "brand2"
    unpaid = await api.get(path_of("integrations", "gpas", "transfers", "none"), 404)
    assert unpaid["code"] == "not_paid"


async def test_player_of_several_cells_is_shown_of_the_one_that_is_named(api: Api) -> None:
    several = await api.get("/v1/players/anna", 409)
    assert (several["code"], several["detail"]) == (
        "several_cells",
        "cells main, brand2 have it; name one with ?cell=",
    )
    for cell, tx_id in (("main", "in-main"), ("brand2", "in-brand2")):
        page = await api.get(f"/v1/players/anna/transfers?cell={cell}")
        assert (page["cell"], [line["provider_tx_id"] for line in page["transfers"]]) == (cell, [tx_id])
    assert (await api.get("/v1/players/ben?cell=main", 404))["code"] == "unknown_player"
    assert (await api.get("/v1/players/ben?cell=brand3", 404))["code"] == "unknown_cell"


async def test_change_says_in_which_cell_or_names_an_integration_that_has_one(api: Api) -> None:
    nowhere = await api.put("/v1/players/carl", {"currency": "EUR"})
    assert (nowhere.status_code, nowhere.json()["code"]) == (409, "several_cells")
    added = await api.put("/v1/players/carl?cell=brand2", {"currency": "EUR"})
    assert (added.status_code, added.json()["cell"]) == (201, "brand2")
    session = path_of("integrations", "gpas", "sessions", "s")
    opened = await api.put(session, {"player_id": "carl"})
    assert (opened.status_code, opened.json()["cell"]) == (201, "brand2")
    assert (await api.get(session))["cell"] == "brand2"
    wrong = await api.put(f"{session}?cell=main", {"player_id": "anna"})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "invalid_query")
    assert (await api.ask("POST", f"{session}/close")).json()["cell"] == "brand2"


async def test_audit_log_is_of_one_cell(api: Api) -> None:
    assert (await api.get("/v1/audit", 409))["code"] == "several_cells"
    page = await api.get("/v1/audit?cell=brand2")
    assert (page["cell"], {entry["action"] for entry in page["entries"]}) == (
        "brand2",
        {"ledger.migrate", "player.add"},
    )


async def test_what_a_cell_that_is_away_may_have_is_never_said_to_be_missing(engine: AsyncEngine) -> None:
    async with _served(engine, AWAY) as api:
        for path in (
            path_of("integrations", "gpas", "transfers", "in-brand2"),
            path_of("transfers", "0192f0c1-2d3e-7f00-8123-456789abcdef"),
            path_of("integrations", "gpas", "sessions", "s"),
            "/v1/players/ben",
            "/v1/players/anna",  # who may be in the other, too
        ):
            unknown = await api.get(path, 503)
            assert (unknown["code"], unknown["detail"].partition(";")[0]) == (
                "unavailable",
                "incomplete: cell brand2 gave no answer",
            )
        found = await api.get(path_of("integrations", "klas", "transfers", "in-main"))
        assert found["cell"] == "main"
        assert (await api.get("/v1/players/anna?cell=main"))["cell"] == "main"
        ready = await api.get("/readyz")
        assert (ready["status"], ready["cells"]["main"]) == ("ready", "ready")
        assert ready["cells"]["brand2"] != "ready"


async def test_what_a_cell_that_settings_name_no_more_has_paid_is_not_said_to_be_unpaid(
    engine: AsyncEngine, brand2: AsyncEngine
) -> None:
    await assign({"main": engine, "brand2": brand2}, {"main": ["klas"], "brand2": ["gpas"]})
    settings = settings_for(engine, "klas", "gpas")
    async with operator_api(settings) as api:
        for path in (
            path_of("integrations", "gpas", "transfers", "in-brand2"),
            path_of("integrations", "gpas", "rounds", "r"),
            path_of("integrations", "gpas", "sessions", "s"),
        ):
            unknown = await api.get(path, 503)
            assert (unknown["code"], unknown["detail"]) == (
                "unavailable",
                "not known here: cell brand2 serves 'gpas', and was not asked",
            )
        unpaid = await api.get(path_of("integrations", "klas", "transfers", "none"), 404)
        assert unpaid["code"] == "not_paid"


async def test_role_that_is_too_low_is_refused_whichever_cells_books_are_away(brand2: AsyncEngine) -> None:
    settings = settings_of_both(brand2, brand2.url.render_as_string())
    away = settings.ledger.model_copy(update={"database_url": AWAY})
    settings = settings.model_copy(update={"ledger": away})
    with capture_logs() as logged:
        async with operator_api(settings) as api:
            assert (await api.get("/v1/players/ben?cell=brand2"))["cell"] == "brand2"
            for path in ("/v1/players/carl?cell=brand2", "/v1/players/carl"):
                refused = await api.put(path, {"currency": "EUR"}, headers=bearing(Role.SUPPORT))
                assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
            exposition = (await api.client.get("/metrics")).text
    assert "credits_operator_unaudited_refusals_total 2.0" in exposition
    unaudited = [line for line in logged if line["event"] == "attempt is not in the audit log"]
    assert [(line["user"], line["subject"], line["operation"]) for line in unaudited] == [
        ("support", "player:carl", "add_player")
    ] * 2
    assert "hunter2" not in repr(logged)
