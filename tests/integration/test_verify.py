"""The audit finds every way in which the books can be wrong, and cries over nothing else."""

# ruff: noqa: S608  (the statements are this file's own)

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import MINOR_MAX, Currencies
from shared.operations import Wallet
from tests.support.audits import audit_of, broken, change, of, unprotect, wallet
from tests.support.credits import win
from worker.ledger.transaction import Ledger
from worker.players import add_player
from worker.verify import verify
from worker.verify.invariants import INVARIANTS, Scope

pytestmark = pytest.mark.any_server

EARLIER = [
    win("earlier", amount_minor=300),
    win("earlier bonus", amount_minor=40, wallet=Wallet.BONUS),
    win("lost earlier", amount_minor=0),
]
WINS = [
    win("w1", amount_minor=1_000),
    win("w2", amount_minor=500, wallet=Wallet.BONUS),
    win("lost", amount_minor=0),
    win("w3", amount_minor=30),
    win("w4", amount_minor=7, wallet=Wallet.BONUS),
    win("bens", amount_minor=2_000, player_id="ben"),
]


@pytest.fixture(params=["full", "incremental"])
async def books(engine: AsyncEngine, request: pytest.FixtureRequest) -> AsyncEngine:
    """Clean books of two players: never audited yet, or audited before the later wins were paid."""
    for player_id in ("anna", "ben"):
        await add_player(engine, player_id, "EUR")
    await Ledger(engine).post(EARLIER)
    if request.param == "incremental":
        assert (await audit_of(engine)).coverage.is_verified_point
    for one in WINS:
        await Ledger(engine).post([one])
    return engine


W1_REAL = f"transfer_id = {of('w1')} AND account = 'REAL'"
W3_REAL = f"transfer_id = {of('w3')} AND account = 'REAL'"

BREAKAGES: dict[str, tuple[str, dict[str, int]]] = {
    "settlement pays less than the player got": (
        f"UPDATE entries SET amount_minor = -999 WHERE transfer_id = {of('w1')} AND account = 'SETTLEMENT'",
        {"sum_zero": 1, "legs": 1},
    ),
    "a leg is lost": (
        f"DELETE FROM entries WHERE transfer_id = {of('w1')} AND account = 'SETTLEMENT'",
        {"sum_zero": 1, "legs": 1},
    ),
    "all legs are lost": (
        f"DELETE FROM entries WHERE transfer_id = {of('w3')}",
        {"legs": 1, "wallet_balance": 1},
    ),
    "a leg is there twice": (
        f"INSERT INTO entries SELECT * FROM entries WHERE {W3_REAL}",
        {"sum_zero": 1, "legs": 1, "wallet_balance": 1, "entry_history": 1},
    ),
    "a lost bet has entries": (
        f"UPDATE entries SET transfer_id = {of('lost')} WHERE transfer_id = {of('bens')}",
        {"legs": 2, "entry_owner": 1, "told_balance": 1},
    ),
    "the legs are of another amount than the transfer": (
        "UPDATE transfers SET amount_minor = 31, real_minor = 31 WHERE provider_tx_id = 'w3'",
        {"legs": 1, "told_history": 2},
    ),
    "the transfer's parts are not its amount": (
        "UPDATE transfers SET amount_minor = 31 WHERE provider_tx_id = 'w3'",
        {"legs": 1},
    ),
    "the win went to the wrong wallet": (
        f"UPDATE entries SET account = 'BONUS' WHERE {W3_REAL}",
        {"legs": 1, "entry_owner": 1, "told_balance": 1},
    ),
    "the win went to the wrong player": (
        f"UPDATE entries SET wallet_id = {wallet('ben', 'REAL')} WHERE {W3_REAL}",
        {"entry_owner": 1, "wallet_balance": 2, "entry_history": 1},
    ),
    "the win went to a wallet that is not there": (
        f"UPDATE entries SET wallet_id = transfer_id WHERE {W3_REAL}",
        {"entry_owner": 1, "wallet_balance": 2, "entry_history": 1},
    ),
    "the transfer says another player": (
        "UPDATE transfers SET player_id = 'ben' WHERE provider_tx_id = 'w4'",
        {"entry_owner": 1, "told_history": 2},
    ),
    "the transfer says another currency": (
        "UPDATE transfers SET currency = 'USD' WHERE provider_tx_id = 'w4'",
        {"entry_owner": 1, "told_history": 1},
    ),
    "a transfer is lost": (
        "DELETE FROM transfers WHERE provider_tx_id = 'w4'",
        {"entry_owner": 2},
    ),
    "a wallet is lost": (
        "DELETE FROM wallets WHERE player_id = 'ben' AND kind = 'REAL'",
        {"entry_owner": 1, "wallet_balance": 1},
    ),
    "a wallet holds too much": (
        f"UPDATE wallets SET balance_minor = balance_minor + 1 WHERE id = {wallet('anna', 'REAL')}",
        {"wallet_balance": 1},
    ),
    "a wallet that never got anything holds something": (
        f"UPDATE wallets SET balance_minor = 1 WHERE id = {wallet('ben', 'BONUS')}",
        {"wallet_balance": 1},
    ),
    "a wallet counts too many entries": (
        f"UPDATE wallets SET version = version + 1 WHERE id = {wallet('anna', 'REAL')}",
        {"wallet_balance": 1},
    ),
    "an entry left another balance": (
        f"UPDATE entries SET balance_minor = balance_minor + 1 WHERE {W1_REAL}",
        {"entry_history": 2, "told_balance": 1},
    ),
    "an entry left no balance": (
        f"UPDATE entries SET balance_minor = NULL WHERE {W3_REAL}",
        {"entry_history": 1, "told_balance": 1},
    ),
    "a wallet's entries have a gap": (
        f"UPDATE entries SET wallet_version = wallet_version + 1 WHERE {W3_REAL}",
        {"entry_history": 1},
    ),
    "two entries of a wallet have one number": (
        f"UPDATE entries SET wallet_version = wallet_version - 1 WHERE {W3_REAL}",
        {"entry_history": 1},
    ),
    "a reply told another balance": (
        "UPDATE transfers SET real_balance_minor = real_balance_minor + 1 WHERE provider_tx_id = 'w3'",
        {"told_balance": 1, "told_history": 1},
    ),
    "a reply told another balance of the wallet that got nothing": (
        "UPDATE transfers SET bonus_balance_minor = bonus_balance_minor + 1 WHERE provider_tx_id = 'w3'",
        {"told_history": 1},
    ),
    "the reply to a lost bet told another balance": (
        "UPDATE transfers SET real_balance_minor = real_balance_minor - 1 WHERE provider_tx_id = 'lost'",
        {"told_history": 1},
    ),
    "a win was paid twice": (
        "UPDATE transfers SET provider_tx_id = 'w1' WHERE provider_tx_id = 'w3'",
        {"identity": 2},
    ),
    "a signed message paid twice": (
        "UPDATE transfers SET signed_digest = 'one' WHERE provider_tx_id IN ('w1', 'w3')",
        {"signed_once": 2},
    ),
    "a win was taken back": (
        "UPDATE transfers SET amount_minor = -7, bonus_minor = -7 WHERE provider_tx_id = 'w4'",
        {"legs": 1, "told_history": 1},
    ),
}


async def test_clean_books_hold_and_are_summed(books: AsyncEngine) -> None:
    audit = await audit_of(books)
    assert audit.holds
    # The earlier transfers are read again: they are of the minutes before the verified point.
    assert (audit.transfers, audit.entries, audit.wallets) == (9, 14, 4)
    assert [(str(s.paid), s.transfers) for s in audit.sums] == [("38.77 EUR", 9)]
    asked = [i.name for i in INVARIANTS if audit.coverage.mode == "full" or i.scope is not Scope.IN_FULL]
    assert [finding.invariant for finding in audit.findings] == asked


async def test_empty_books_hold(engine: AsyncEngine) -> None:
    audit = await audit_of(engine)
    assert (audit.holds, audit.transfers, audit.sums) == (True, 0, [])


async def test_books_hold_without_their_protection(books: AsyncEngine) -> None:
    await unprotect(books)
    assert (await audit_of(books)).holds


@pytest.mark.parametrize(("statement", "expected"), BREAKAGES.values(), ids=BREAKAGES)
async def test_audit_finds_that(books: AsyncEngine, statement: str, expected: dict[str, int]) -> None:
    await unprotect(books)
    await change(books, statement)
    audit = await audit_of(books)
    assert (audit.holds, broken(audit)) == (False, expected)


def test_every_invariant_is_broken_by_some_test() -> None:
    asked_always = {i.name for i in INVARIANTS if i.scope is not Scope.IN_FULL}
    assert {name for _, found in BREAKAGES.values() for name in found} == asked_always


async def test_finding_names_the_rows_that_are_wrong(books: AsyncEngine) -> None:
    await unprotect(books)
    await change(books, "UPDATE transfers SET real_balance_minor = 9 WHERE provider_tx_id = 'w3'")
    (finding,) = [f for f in (await audit_of(books)).findings if f.invariant == "told_balance"]
    (case,) = finding.cases
    transfer_id = case.pop("transfer_id")
    assert case == {
        "account": "REAL",
        "integration": "klas",
        "provider_tx_id": "w3",
        "told_minor": 9,
        "entry_balance_minor": 1_330,
    }
    planned = await Ledger(books).post([WINS[3]])
    assert transfer_id == planned.transfers[WINS[3].identity].id


async def test_many_findings_are_counted_and_some_are_told(books: AsyncEngine) -> None:
    await Ledger(books).post([win(f"more-{n}") for n in range(50)])
    await unprotect(books)
    await change(books, "DELETE FROM entries")
    audit = await verify(books, Currencies(), cases_max=5)
    (legs,) = [f for f in audit.findings if f.invariant == "legs"]
    assert (legs.broken, len(legs.cases)) == (57, 5)


async def test_sum_of_all_players_may_exceed_64_bits(engine: AsyncEngine) -> None:
    for n in range(12):
        await add_player(engine, f"player-{n}", "EUR")
    await Ledger(engine).post([win(f"win-{n}", player_id=f"player-{n}", amount_minor=MINOR_MAX) for n in range(12)])
    audit = await audit_of(engine)
    assert audit.holds
    assert [s.paid.minor for s in audit.sums] == [12 * MINOR_MAX]
