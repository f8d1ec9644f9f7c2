"""Posting in one statement, on PostgreSQL: what a worker remembers may be wrong, what it writes never is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import MINOR_MAX
from shared.operations import Credit, Wallet
from shared.outcome import Outcome, OutcomeCode
from tests.support.credits import WIN, win
from tests.support.ledgers import add_players, assert_books_hold, balance_minor, post, receipt, results
from worker.ledger.transaction import Ledger


class Worker:
    """A worker's ledger, and which statements it asked."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.ledger = Ledger(engine)
        self.asked: list[str] = []
        statements = self.ledger._statements  # noqa: SLF001
        for name in ("read_wallets", "lock_wallets", "find_transfers", "insert"):
            setattr(statements, name, self._told(name, getattr(statements, name)))

    def _told(self, name: str, statement: Any) -> Any:
        async def execute(*arguments: Any) -> Any:
            self.asked.append(name)
            return await statement(*arguments)

        return execute

    async def post(self, *credits_: Credit) -> list[Outcome]:
        self.asked.clear()
        return await post(self.ledger, *credits_)


@pytest.fixture
async def workers(postgres: AsyncEngine) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers on books of two players; whatever they do, the books hold."""
    await add_players(postgres)
    yield Worker(postgres), Worker(postgres)
    await assert_books_hold(postgres)


async def test_new_win_of_a_remembered_player_is_one_statement(workers: tuple[Worker, Worker]) -> None:
    worker, _ = workers
    await worker.post(WIN)
    assert worker.asked == ["read_wallets", "insert"]
    (outcome,) = await worker.post(win("win-2", wallet=Wallet.BONUS))
    assert worker.asked == ["insert"]
    assert (receipt(outcome).real_balance_minor, receipt(outcome).bonus_balance_minor) == (1050, 1050)
    await worker.post(win("win-3"), win("win-4", player_id="ben"))
    assert worker.asked == ["read_wallets", "insert"]


LOCKED = ["lock_wallets", "find_transfers", "insert"]


@pytest.mark.parametrize("of_other", [WIN, win(wallet=Wallet.BONUS)], ids=["same wallet", "other wallet"])
@pytest.mark.parametrize("amount_minor", [1050, 0])
async def test_balance_that_another_worker_moved_is_told_and_kept(
    workers: tuple[Worker, Worker], of_other: Credit, amount_minor: int
) -> None:
    one, other = workers
    await one.post(win("win-0"))
    await other.post(of_other)
    (outcome,) = await one.post(win("win-2", amount_minor=amount_minor))
    assert one.asked == ["insert", *LOCKED]
    assert receipt(outcome).balance_minor == 2 * 1050 + amount_minor
    assert await balance_minor(one.ledger) == 2 * 1050 + amount_minor


async def test_balance_that_was_restored_is_told_though_its_version_is_the_same(
    postgres: AsyncEngine, workers: tuple[Worker, Worker]
) -> None:
    """The database came back as it was before the win, and another worker paid another one since."""
    one, other = workers
    await one.post(win("lost"))
    async with postgres.begin() as connection:
        for statement in (
            "ALTER TABLE entries DISABLE TRIGGER ALL",
            "ALTER TABLE transfers DISABLE TRIGGER ALL",
            "DELETE FROM entries",
            "DELETE FROM transfers",
            "UPDATE wallets SET balance_minor = 0, version = 0",
            "ALTER TABLE entries ENABLE TRIGGER ALL",
            "ALTER TABLE transfers ENABLE TRIGGER ALL",
        ):
            await connection.execute(text(statement))
    await other.post(win("win-2", amount_minor=7))
    (outcome,) = await one.post(win("win-3"))
    assert receipt(outcome).balance_minor == 1057


async def test_win_that_another_worker_posted_is_a_replay_or_a_conflict(
    workers: tuple[Worker, Worker],
) -> None:
    one, other = workers
    await one.post(win("win-0", player_id="ben"))
    (first,) = await other.post(WIN)
    outcomes = await one.post(WIN, win("win-2", player_id="ben"))
    assert one.asked == ["read_wallets", "insert", *LOCKED]
    assert (outcomes[0].receipt, results(outcomes)) == (
        first.receipt,
        [OutcomeCode.REPLAYED, OutcomeCode.POSTED],
    )
    assert results(await one.post(win(amount_minor=1))) == [OutcomeCode.CONFLICT]


async def test_what_was_written_under_locks_is_remembered_too(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    await other.post(WIN)
    await one.post(WIN, win("win-2"))
    assert one.asked[-3:] == LOCKED
    await one.post(win("win-3"))
    assert one.asked == ["insert"]


async def test_batch_that_needs_more_than_one_statement_gets_it_in_its_order(
    workers: tuple[Worker, Worker],
) -> None:
    worker, _ = workers
    batch = [
        win(open_session_only=True),
        win("win-2", player_id="nobody"),
        win(amount_minor=1),
        win(amount_minor=2),
        win("win-3", amount_minor=MINOR_MAX - 1),
        win("win-4", amount_minor=1),
    ]
    assert results(await worker.post(*batch)) == [
        OutcomeCode.SESSION_CLOSED,
        OutcomeCode.UNKNOWN_PLAYER,
        OutcomeCode.POSTED,
        OutcomeCode.CONFLICT,
        OutcomeCode.POSTED,
        OutcomeCode.BALANCE_LIMIT,
    ]
    assert worker.asked == ["read_wallets", *LOCKED]


async def test_what_could_not_be_written_is_not_remembered(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, _ = workers
    await worker.post(WIN)

    async def fail(*_: object) -> None:
        raise LookupError

    with monkeypatch.context() as patched:
        patched.setattr(worker.ledger._statements, "insert", fail)  # noqa: SLF001
        with pytest.raises(LookupError):
            await worker.ledger.post_new([win("win-2")])
    (outcome,) = await worker.post(win("win-2"))
    assert worker.asked == ["read_wallets", "insert"]
    assert receipt(outcome).balance_minor == 2 * 1050


async def test_no_more_accounts_are_remembered_than_the_bound(
    workers: tuple[Worker, Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.ledger.wallet_cache.ACCOUNTS_MAX", 1)
    worker, _ = workers
    await worker.post(WIN)
    await worker.post(win("win-2", player_id="ben"))
    await worker.post(win("win-3", player_id="ben"))
    assert worker.asked == ["insert"]
    await worker.post(win("win-4"))
    assert worker.asked == ["read_wallets", "insert"]


async def test_same_wins_at_once_by_workers_that_look_and_that_do_not(
    workers: tuple[Worker, Worker],
) -> None:
    hasty, careful = workers
    for turn in range(40):
        batch = [win(f"{turn}-{n}", player_id=("anna", "ben")[n % 2]) for n in range(10)]
        paid, planned = await asyncio.gather(hasty.post(*batch), careful.ledger.post(batch[::-1]))
        again = planned.outcomes[::-1]
        assert sorted(results(paid) + results(again)) == [OutcomeCode.POSTED] * 10 + [OutcomeCode.REPLAYED] * 10
        assert [o.receipt for o in paid] == [o.receipt for o in again]
    assert await balance_minor(hasty.ledger) == 40 * 5 * 1050
