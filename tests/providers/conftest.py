"""Fixtures of the providers' tests. A test module names its DIALECT, and the INTEGRATIONS it adds."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from simulator.dialects.base import Dialect
from simulator.dialects.values import Facts
from tests.support.servers import fresh_database
from tests.support.stack import HASTY_SECONDS, Stack, embedded_stack


@pytest.fixture(scope="module")
def dialect(request: pytest.FixtureRequest) -> Dialect:
    named = request.module.DIALECT
    assert isinstance(named, Dialect)
    return named


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
async def stack(
    request: pytest.FixtureRequest, dialect: Dialect, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    if request.param == "sqlite":
        database_url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('ledger')}/credits.db"
    else:
        database_url = await fresh_database(request.getfixturevalue("servers"))
    tables = {
        dialect.name: dialect.settings,
        dialect.second_brand: dialect.at(dialect.second_brand).settings,
        dialect.hasty: {**dialect.at(dialect.hasty).settings, "reply_within_seconds": HASTY_SECONDS},
        **getattr(request.module, "INTEGRATIONS", {}),
    }
    # A slow machine must not look like a slow ledger.
    integrations = {name: {"reply_within_seconds": 30, **table} for name, table in tables.items()}
    async with embedded_stack(database_url, integrations) as running:
        yield running
        assert await running.broken_invariants() == []


@pytest.fixture
async def facts(stack: Stack, dialect: Dialect) -> Facts:
    """A win of a player with a session, both new."""
    return await _new_player(stack, dialect)


@pytest.fixture
async def other(stack: Stack, dialect: Dialect) -> Facts:
    """A win of another player."""
    return await _new_player(stack, dialect)


async def _new_player(stack: Stack, dialect: Dialect) -> Facts:
    facts = Facts(player_id=f"player{uuid4().hex[:12]}", session_id=f"session-{uuid4()}")
    await stack.add_player(facts.player_id, "EUR")
    await stack.open_session(dialect.name, facts.session_id, facts.player_id)
    return facts
