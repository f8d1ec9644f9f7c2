"""A platform that walks a long list sees each transfer once, whatever is posted meanwhile."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.credits import win
from tests.support.ledgers import add_players
from tests.support.operator_api import Api, operator_api, settings_for
from worker.ledger.transaction import Ledger
from worker.queries.queries import _wins_of

pytestmark = pytest.mark.any_server

TRANSFERS = 137
LISTS = {"transfers": "/v1/players/anna/transfers", "wins": "/v1/integrations/klas/rounds/round-1"}


@pytest.fixture
async def api(engine: AsyncEngine) -> AsyncIterator[Api]:
    """The API on a ledger where anna has 137 wins of one round, and ben a few among them."""
    await add_players(engine)
    for n in range(TRANSFERS):
        # One at a time, so that the order of their ids is known.
        others = [win(f"bens-{n}", player_id="ben", round_id="round-2")] if n % 20 == 0 else []
        await Ledger(engine).post([win(f"w-{n}"), *others])
    async with operator_api(settings_for(engine)) as served:
        yield served


async def walk(api: Api, engine: AsyncEngine, name: str, limit: int) -> list[str]:
    """Return the providers' ids of all pages; a new win is posted before each but the first."""
    cursor, found = None, []
    for n in range(TRANSFERS):
        asked: dict[str, Any] = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        page = await api.get(LISTS[name], params=asked)
        assert len(page[name]) <= limit
        found += [shown["provider_tx_id"] for shown in page[name]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found
        await Ledger(engine).post([win(f"new-{n}")])
    raise AssertionError("the walk has no end")


@pytest.mark.parametrize("limit", [10, 136, 137, 500])
async def test_walk_through_a_players_transfers_has_no_hole_and_no_repeat(
    api: Api, engine: AsyncEngine, limit: int
) -> None:
    found = await walk(api, engine, "transfers", limit)
    assert found == [f"w-{n}" for n in reversed(range(TRANSFERS))]


async def test_walk_through_a_round_has_no_hole_and_ends_with_what_came_meanwhile(
    api: Api, engine: AsyncEngine
) -> None:
    found = await walk(api, engine, "wins", 10)
    assert found[:TRANSFERS] == [f"w-{n}" for n in range(TRANSFERS)]
    assert found[TRANSFERS:] == [f"new-{n}" for n in range(len(found) - TRANSFERS)]
    assert len(found) > TRANSFERS


async def test_page_is_bounded_when_nothing_is_said(api: Api) -> None:
    assert len((await api.get(LISTS["transfers"]))["transfers"]) == 50


async def test_cursor_leads_through_its_own_list_only(api: Api) -> None:
    cursor = (await api.get(LISTS["transfers"]))["next_cursor"]
    for other in ("/v1/players/ben/transfers", LISTS["wins"]):
        refused = await api.get(other, 400, params={"cursor": cursor})
        assert (refused["code"], refused["detail"]) == ("invalid_cursor", "the cursor is of another list")


@pytest.mark.parametrize("cursor", ["", "x", "é" * 32, "=" * 32, "A" * 31 + "\n", "A" * 4_000, "AA==" * 8])
async def test_text_that_is_no_cursor_is_refused(api: Api, cursor: str) -> None:
    refused = await api.get(LISTS["transfers"], 400, params={"cursor": cursor})
    assert (refused["code"], refused["detail"]) == ("invalid_cursor", "this is no cursor")


async def test_page_of_a_round_never_reads_all_transfers_there_are(postgres: AsyncEngine) -> None:
    await add_players(postgres)
    await Ledger(postgres).post([win(f"w-{n}") for n in range(300)])
    compiled = _wins_of("klas", "round-1", None, 50).compile(
        postgres.sync_engine, compile_kwargs={"literal_binds": True}
    )
    async with postgres.connect() as connection:
        # With what the database knows of large rounds, it would rather walk along the ids.
        await connection.execute(text("ANALYZE transfers"))
        await connection.execute(text("SET enable_seqscan = off"))
        plan = "\n".join((await connection.execute(text(f"EXPLAIN {compiled}"))).scalars())
    assert "ix_transfers_round" in plan, plan
    assert plan.count("pk_transfers") == 1, plan
