"""What a batch asks is searched by index from the first win on: plans are kept while the books grow."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.credits import win
from worker.ledger.transaction import Ledger
from worker.players import add_player

pytestmark = pytest.mark.any_server

BATCH = [win(str(n), round_id=f"round-{n}", round_closed=n % 2 == 0) for n in range(100)]


async def plans_of_a_batch(engine: AsyncEngine) -> dict[str, str]:
    """Return the plans of what posting a batch asks, by statement."""
    asked: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked[statement] = parameters

    ledger = Ledger(engine)
    await ledger.keyed_epoch()  # by which it knows that no replica is waited for
    event.listen(engine.sync_engine, "before_cursor_execute", note)
    assert await ledger.post_new(BATCH) is not None
    await ledger.post(BATCH)
    event.remove(engine.sync_engine, "before_cursor_execute", note)
    plans = {}
    async with engine.connect() as connection:
        for statement, parameters in asked.items():
            rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            plans[statement] = "\n".join(rows.scalars())
    return plans


async def test_batch_searches_new_books_by_index(postgres: AsyncEngine) -> None:
    """The plan's maker takes new books for empty until they are analyzed, a minute and many wins later."""
    await add_player(postgres, "anna", "EUR")
    plans = await plans_of_a_batch(postgres)
    assert len(plans) == 5, "read; insert; lock, find, which copy"
    assert not [plan for plan in plans.values() if "Seq Scan" in plan]
    find = next(plan for asked, plan in plans.items() if asked.startswith("SELECT t."))
    assert "uq_transfers_integration_provider_tx_id" in find
    assert "((integration = k.integration) AND (provider_tx_id = k.provider_tx_id))" in find
    insert = next(plan for asked, plan in plans.items() if "INSERT INTO transfers" in asked)
    assert "((round_id = n_1.round_id) AND (player_id = n_1.player_id))" in insert
    assert "Index Scan using pk_wallets on wallets w" in insert


async def test_batch_of_repeats_waits_for_no_disk(postgres: AsyncEngine) -> None:
    """What nobody will read again need not be on disk: a repeat changed nothing."""
    await add_player(postgres, "anna", "EUR")
    ledger = Ledger(postgres)
    await ledger.keyed_epoch()
    await ledger.post(BATCH)
    ended: list[str] = []
    event.listen(postgres.sync_engine, "commit", lambda _: ended.append("commit"))
    await ledger.post(BATCH)
    assert ended == []
    await ledger.post([win("new")])
    assert ended == ["commit"]
