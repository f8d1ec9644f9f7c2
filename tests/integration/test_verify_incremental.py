"""The incremental audit passes over nothing that was paid; what it can't see, a full one does."""

# ruff: noqa: S608  (the statements are this file's own)

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.operations import Wallet
from tests.support.audits import audit_of, broken, change, of, set_worker_clock, unprotect, wallet
from tests.support.credits import win
from worker.ledger.planner import Plan
from worker.ledger.transaction import Ledger
from worker.players import add_player
from worker.verify import Audit

pytestmark = pytest.mark.any_server

YEAR = timedelta(days=365)


@pytest.fixture
async def books(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncEngine:
    """Audited books in which wins of a year ago are followed by wins of now."""
    for player_id in ("anna", "ben"):
        await add_player(engine, player_id, "EUR")
    with monkeypatch.context() as patched:
        set_worker_clock(patched, behind=YEAR)
        old = [win("old 1", amount_minor=100), win("old lost", amount_minor=0), win("old 2", amount_minor=7)]
        await Ledger(engine).post([*old, win("old bonus", wallet=Wallet.BONUS)])
    await Ledger(engine).post([win("recent"), win("bens", player_id="ben")])
    assert (await audit_of(engine)).coverage.is_verified_point
    return engine


async def points(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text("SELECT COUNT(*) FROM verified_points"))).scalar_one())


async def transfer_id(engine: AsyncEngine, provider_tx_id: str) -> str:
    async with engine.connect() as connection:
        found = await connection.execute(text(f"SELECT CAST({of(provider_tx_id)} AS text)"))
        return str(found.scalar_one()).replace("-", "")


def from_id(audit: Audit) -> str:
    return (audit.coverage.from_transfer_id or "").replace("-", "")


async def test_first_audit_is_full_and_the_next_reads_what_is_new(books: AsyncEngine) -> None:
    await Ledger(books).post([win("new", amount_minor=1), win("new lost", amount_minor=0)])
    audit = await audit_of(books)
    assert (audit.holds, audit.coverage.mode, audit.coverage.is_verified_point) == (True, "incremental", True)
    assert (audit.transfers, audit.entries, audit.wallets) == (4, 6, 4), "of now, but not of a year ago"
    full = await audit_of(books, full=True)
    assert (full.coverage.mode, full.transfers) == ("full", 8)
    assert full.coverage.to_transfer_id == audit.coverage.to_transfer_id


async def test_every_audit_builds_on_the_one_before(books: AsyncEngine) -> None:
    audits = []
    for n in range(3):
        await Ledger(books).post([win(f"new {n}")])
        audits.append(await audit_of(books))
    assert all(audit.holds for audit in audits)
    assert audits[2].coverage.since == audits[1].coverage.read_at
    assert await points(books) == 4


@pytest.mark.parametrize("behind", [timedelta(days=1), 2 * YEAR], ids=["a day", "two years"])
async def test_paid_win_with_an_old_id_is_not_passed_over(
    books: AsyncEngine, monkeypatch: pytest.MonkeyPatch, behind: timedelta
) -> None:
    set_worker_clock(monkeypatch, behind)
    await Ledger(books).post([win("late"), win("late bonus", wallet=Wallet.BONUS)])
    audit = await audit_of(books)
    assert audit.holds
    assert from_id(audit) <= await transfer_id(books, "late")
    assert (await audit_of(books)).transfers == 2, "once verified, they are not sought again"


async def test_wrong_legs_of_a_win_with_an_old_id_are_found(
    books: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_worker_clock(monkeypatch, timedelta(days=1))
    await Ledger(books).post([win("late")])
    await unprotect(books)
    await change(books, f"UPDATE entries SET amount_minor = -1 WHERE transfer_id = {of('late')} AND amount_minor < 0")
    assert broken(await audit_of(books)) == {"sum_zero": 1, "legs": 1}


async def test_wins_of_many_slow_clocks_are_not_passed_over(
    books: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.verify.runner.GAPS_MAX", 1)
    monkeypatch.setattr("worker.verify.runner.RESTARTS_MAX", 2)
    for n in range(8):
        await add_player(books, f"player {n}", "EUR")
        set_worker_clock(monkeypatch, timedelta(days=n + 1))
        await Ledger(books).post([win(f"late {n}", player_id=f"player {n}")])
    audit = await audit_of(books)
    assert audit.holds
    assert all([from_id(audit) <= await transfer_id(books, f"late {n}") for n in range(8)])


class SlowLedger(Ledger):
    """A ledger whose transactions stay open until they are let go."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.written, self.let_go = asyncio.Event(), asyncio.Event()

    async def _write(self, connection: AsyncConnection, planned: Plan) -> None:
        await super()._write(connection, planned)
        self.written.set()
        await self.let_go.wait()


@pytest.mark.parametrize("margin", [timedelta(minutes=5), timedelta()], ids=["by time", "by number"])
async def test_win_that_was_being_posted_during_an_audit_is_in_the_next(
    postgres: AsyncEngine, monkeypatch: pytest.MonkeyPatch, margin: timedelta
) -> None:
    monkeypatch.setattr("worker.verify.checkpoints.MARGIN", margin)
    await add_player(postgres, "anna", "EUR")
    await add_player(postgres, "ben", "EUR")
    slow = SlowLedger(postgres)
    posting = asyncio.create_task(slow.post([win("slow")]))
    await slow.written.wait()
    await asyncio.sleep(0.01)  # the next id is of a later millisecond
    await Ledger(postgres).post([win("bens", player_id="ben")])
    assert (await audit_of(postgres)).transfers == 1, "what is not committed is not there"
    slow.let_go.set()
    await posting
    audit = await audit_of(postgres)
    assert audit.holds
    assert from_id(audit) <= await transfer_id(postgres, "slow")


async def test_failed_audit_does_not_move_the_verified_point(books: AsyncEngine) -> None:
    await Ledger(books).post([win("new")])
    await unprotect(books)
    too_much = f"UPDATE wallets SET balance_minor = balance_minor + 1 WHERE id = {wallet('anna', 'REAL')}"
    await change(books, too_much)
    before = (await audit_of(books)).coverage
    assert (before.is_verified_point, await points(books)) == (False, 1)
    again = await audit_of(books)
    assert (broken(again), again.coverage.since) == ({"wallet_balance": 1}, before.since)
    await change(books, too_much.replace("+ 1", "- 1"))
    mended = await audit_of(books)
    assert (mended.holds, mended.coverage.since, await points(books)) == (True, before.since, 2)


async def test_two_audits_at_once_leave_one_point(books: AsyncEngine) -> None:
    await Ledger(books).post([win("new")])
    audits = await asyncio.gather(audit_of(books), audit_of(books), audit_of(books, full=True))
    assert all(audit.holds for audit in audits)
    kept = sum(audit.coverage.is_verified_point for audit in audits)
    assert await points(books) == 1 + kept
    assert kept >= 1
    await Ledger(books).post([win("newer")])
    assert (await audit_of(books)).holds


OLD_ROWS_CHANGED = {
    "an old reply told another balance": (
        ["UPDATE transfers SET bonus_balance_minor = 1 WHERE provider_tx_id = 'old 2'"],
        {"told_history": 1},
    ),
    "an old leg is of another amount": (
        [f"UPDATE entries SET amount_minor = -99 WHERE transfer_id = {of('old 1')} AND amount_minor < 0"],
        {"sum_zero": 1, "legs": 1},
    ),
    "an old lost bet has another's id": (
        [f"UPDATE transfers SET id = {of('old 1')} WHERE provider_tx_id = 'old lost'"],
        {"legs": 1},
    ),
    "an old win is another player's": (
        ["UPDATE transfers SET player_id = 'ben' WHERE provider_tx_id = 'old 1'"],
        {"entry_owner": 1, "told_history": 5},
    ),
    "an old win is there twice": (
        ["UPDATE transfers SET provider_tx_id = 'old 1' WHERE provider_tx_id = 'old 2'"],
        {"identity": 2},
    ),
}


@pytest.mark.parametrize(("statements", "expected"), OLD_ROWS_CHANGED.values(), ids=OLD_ROWS_CHANGED)
async def test_change_of_what_was_verified_is_found_by_a_full_audit_alone(
    books: AsyncEngine, statements: list[str], expected: dict[str, int]
) -> None:
    await unprotect(books)
    await change(books, *statements)
    assert (await audit_of(books)).holds
    assert broken(await audit_of(books, full=True)) == expected


async def test_lost_bet_of_a_clock_behind_the_margin_is_read_by_a_full_audit_alone(
    books: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_worker_clock(monkeypatch, timedelta(days=1))
    await Ledger(books).post([win("lost", amount_minor=0)])
    await unprotect(books)
    await change(books, "UPDATE transfers SET real_balance_minor = 3 WHERE provider_tx_id = 'lost'")
    assert (await audit_of(books)).holds
    assert broken(await audit_of(books, full=True)) == {"told_history": 1}


async def test_lost_bet_that_tells_too_little_is_found_though_it_looks_verified(books: AsyncEngine) -> None:
    """Told less than was verified, a lost bet may be one of before the point: by its id nobody knows."""
    await Ledger(books).post([win("lost", amount_minor=0), win("last")])
    await audit_of(books)
    assert (await audit_of(books)).holds, "it tells what a transfer before it left"
    await unprotect(books)
    await change(books, "UPDATE transfers SET real_balance_minor = 3 WHERE provider_tx_id = 'lost'")
    for full in (False, True):
        assert broken(await audit_of(books, full=full)) == {"told_history": 1}


async def test_history_that_was_cut_short_by_hand_is_found(books: AsyncEngine) -> None:
    await unprotect(books)
    await change(
        books,
        f"DELETE FROM entries WHERE transfer_id = {of('bens')}",
        "DELETE FROM transfers WHERE provider_tx_id = 'bens'",
        f"UPDATE wallets SET balance_minor = 0, version = 0 WHERE id = {wallet('ben', 'REAL')}",
    )
    assert broken(await audit_of(books)) == {"wallet_balance": 1}
    assert broken(await audit_of(books, full=True)) == {"verified_history": 1}


async def test_history_that_was_rewritten_by_hand_is_found_by_a_full_audit(books: AsyncEngine) -> None:
    await unprotect(books)
    entries = f"WHERE transfer_id = {of('bens')} AND amount_minor"
    told = "amount_minor = 9, real_minor = 9, real_balance_minor = 9"
    await change(
        books,
        f"UPDATE entries SET amount_minor = 9, balance_minor = 9 {entries} > 0",
        f"UPDATE entries SET amount_minor = -9 {entries} < 0",
        f"UPDATE transfers SET {told} WHERE provider_tx_id = 'bens'",
        f"UPDATE wallets SET balance_minor = 9 WHERE id = {wallet('ben', 'REAL')}",
    )
    assert broken(await audit_of(books, full=True)) == {"verified_history": 1}


async def test_wallet_that_is_gone_is_found(books: AsyncEngine) -> None:
    await unprotect(books)
    await change(books, "DELETE FROM wallets WHERE player_id = 'ben'")
    assert broken(await audit_of(books)) == {"entry_owner": 1, "wallet_balance": 1}
