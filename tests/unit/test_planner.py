"""The arithmetic of a batch: each win is paid once, to its player, and one bad credit costs no other."""

from datetime import UTC, datetime
from typing import Any, get_args
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.money import MINOR_MAX
from shared.operations import AnyOperation, Credit, Wallet
from shared.outcome import Outcome, OutcomeCode, Receipt
from tests.support.credits import OTHER_CONTENT, OTHER_DELIVERY, WIN, win
from worker.database.schema import SETTLEMENT, conflicts, entries, transfers
from worker.ledger.planner import Plan, plan
from worker.ledger.rows import ConflictRow, EntryRow, TransferRow, WalletRow, settlement_entry
from worker.ledger.rules import RULES, Conflict, Replay, replay_or_conflict
from worker.ledger.state import LedgerState, PlayerWallets, Transfer, WalletState

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
REAL_ID, BONUS_ID = UUID(int=1), UUID(int=2)


def account(real_minor: int = 0, bonus_minor: int = 0, version: int = 0) -> PlayerWallets:
    return {
        Wallet.REAL: WalletState(REAL_ID, real_minor, version),
        Wallet.BONUS: WalletState(BONUS_ID, bonus_minor, version),
    }


def known(**different: Any) -> LedgerState:
    """Return a ledger in which anna has empty wallets in EUR, or as it is `different`."""
    fields = {"accounts": {("anna", "EUR"): account()}, "transfers": {}, "players": {"anna"}}
    return LedgerState(**{**fields, **different})


def results(planned: Plan) -> list[OutcomeCode]:
    return [outcome.code for outcome in planned.outcomes]


def receipt(outcome: Outcome) -> Receipt:
    assert outcome.receipt is not None
    return outcome.receipt


def posted(credit: Credit = WIN) -> Transfer:
    return plan([credit], known(), NOW).transfers[credit.identity]


def test_win_is_paid_to_the_wallet_and_taken_from_settlement() -> None:
    planned = plan([WIN], known(accounts={("anna", "EUR"): account(100, 7, version=3)}), NOW)
    paid = receipt(planned.outcomes[0])
    assert (paid.real_minor, paid.bonus_minor) == (1050, 0)
    assert (paid.real_balance_minor, paid.bonus_balance_minor, paid.balance_minor) == (1150, 7, 1157)
    (entry,) = planned.entry_rows
    assert str(entry.transfer_id) == paid.transfer_id
    assert entry == EntryRow(entry.transfer_id, Wallet.REAL, REAL_ID, 1050, 1150, 4)
    assert planned.wallet_rows == [WalletRow(REAL_ID, 1150, 4, 100, 3), WalletRow(BONUS_ID, 7, 3, 7, 3)]


def test_bonus_win_goes_to_the_bonus_wallet_alone() -> None:
    planned = plan([win(wallet=Wallet.BONUS)], known(), NOW)
    paid = receipt(planned.outcomes[0])
    assert (paid.real_minor, paid.bonus_minor) == (0, 1050)
    assert (paid.real_balance_minor, paid.bonus_balance_minor) == (0, 1050)
    assert planned.wallet_rows == [(REAL_ID, 0, 0, 0, 0), (BONUS_ID, 1050, 1, 0, 0)]


def test_rows_have_the_columns_of_their_tables() -> None:
    for row_type, table in ((TransferRow, transfers), (EntryRow, entries), (ConflictRow, conflicts)):
        columns = {column.name for column in table.columns}
        assert columns - {"posted_at"} == set(row_type._fields), table.name


def test_transfer_row_holds_what_the_credit_says() -> None:
    planned = plan([win(details={"a": "ä"}, round_closed=True, session_id="s")], known(), NOW)
    (row,) = planned.transfer_rows
    assert row.provider_tx_id == "win-1"
    assert (row.details, row.round_closed, row.session_id) == ('{"a":"ä"}', True, "s")
    transfer = planned.transfers[WIN.identity]
    assert str(row.id) == transfer.id
    for name in Transfer.__struct_fields__[1:]:
        assert getattr(row, name) == getattr(transfer, name)
    assert planned.posted_at == NOW
    assert settlement_entry(row.id, -1050) == EntryRow(row.id, SETTLEMENT, None, -1050, None, None)


def test_there_is_a_rule_for_each_kind_of_operation() -> None:
    assert RULES.keys() == set(get_args(AnyOperation) or [AnyOperation])


def test_same_win_twice_in_one_batch_is_paid_once_and_answered_alike() -> None:
    planned = plan([WIN, win("win-2"), WIN], known(), NOW)
    assert results(planned) == [OutcomeCode.POSTED, OutcomeCode.POSTED, OutcomeCode.REPLAYED]
    assert planned.outcomes[2].receipt == planned.outcomes[0].receipt
    assert planned.wallet_rows[0] == (REAL_ID, 2100, 2, 0, 0)
    assert len(planned.transfer_rows) == 2


def test_altered_copy_in_one_batch_is_a_conflict_and_pays_nothing() -> None:
    planned = plan([WIN, win(amount_minor=999_999)], known(), NOW)
    assert planned.outcomes[1] == Outcome(OutcomeCode.CONFLICT, mismatched_fields=("amount_minor",))
    assert planned.wallet_rows[0] == (REAL_ID, 1050, 1, 0, 0)


def test_same_id_of_two_integrations_is_two_wins() -> None:
    planned = plan([WIN, win(integration="gpas")], known(), NOW)
    assert results(planned) == [OutcomeCode.POSTED, OutcomeCode.POSTED]


def test_repeat_of_a_posted_win_repeats_the_receipt_though_the_balance_moved() -> None:
    before = posted()
    later = known(accounts={("anna", "EUR"): account(5_000, version=9)}, transfers={WIN.identity: before})
    planned = plan([WIN], later, NOW)
    assert planned.outcomes == [Outcome(OutcomeCode.REPLAYED, before.receipt)]
    assert (planned.transfer_rows, planned.entry_rows, planned.wallet_rows) == ([], [], [])


@pytest.mark.parametrize("field", Credit.FINGERPRINT)
def test_conflict_names_the_field_that_differs(field: str) -> None:
    transfer = posted()
    decision = replay_or_conflict(win(**{field: OTHER_CONTENT[field]}), transfer)
    assert decision == Conflict(transfer, (field,))


def test_conflict_names_every_field_that_differs() -> None:
    transfer = posted()
    assert replay_or_conflict(win(**OTHER_CONTENT), transfer) == Conflict(transfer, Credit.FINGERPRINT)


@pytest.mark.parametrize("field", OTHER_DELIVERY)
def test_repeat_with_another_delivery_is_the_same_win(field: str) -> None:
    transfer = posted()
    assert replay_or_conflict(win(**{field: OTHER_DELIVERY[field]}), transfer) == Replay(transfer)


def test_every_field_of_a_credit_is_content_or_delivery() -> None:
    wallet = {"wallet"}  # it follows from the kind and our own settings, not from the provider
    identity = {"integration", "provider_tx_id", "signed_digest"}
    assert set(Credit.__struct_fields__) == {*Credit.FINGERPRINT, *OTHER_DELIVERY, *wallet, *identity}


def test_lost_bet_is_recorded_without_entries() -> None:
    planned = plan([win(amount_minor=0)], known(accounts={("anna", "EUR"): account(7, 8)}), NOW)
    told = receipt(planned.outcomes[0])
    assert (told.real_minor, told.bonus_minor, told.balance_minor) == (0, 0, 15)
    assert len(planned.transfer_rows) == 1
    assert planned.entry_rows == []
    assert planned.wallet_rows == [(REAL_ID, 7, 0, 7, 0), (BONUS_ID, 8, 0, 8, 0)]


@pytest.mark.parametrize(
    ("real_minor", "bonus_minor", "result"),
    [
        (MINOR_MAX - 1050, 0, OutcomeCode.POSTED),
        (MINOR_MAX - 1049, 0, OutcomeCode.BALANCE_LIMIT),
        (0, MINOR_MAX - 1049, OutcomeCode.BALANCE_LIMIT),
        (MINOR_MAX, 0, OutcomeCode.BALANCE_LIMIT),
    ],
)
def test_balance_never_outgrows_what_can_be_told(real_minor: int, bonus_minor: int, result: OutcomeCode) -> None:
    planned = plan([WIN], known(accounts={("anna", "EUR"): account(real_minor, bonus_minor)}), NOW)
    assert results(planned) == [result]


def test_win_that_does_not_fit_leaves_room_for_a_smaller_one() -> None:
    full = known(accounts={("anna", "EUR"): account(MINOR_MAX - 10)})
    planned = plan([WIN, win("win-2", amount_minor=10), win("win-3", amount_minor=0)], full, NOW)
    assert results(planned) == [OutcomeCode.BALANCE_LIMIT, OutcomeCode.POSTED, OutcomeCode.POSTED]


def test_unknown_player_gets_nothing_and_costs_the_others_nothing() -> None:
    planned = plan([win("a", player_id="nobody"), WIN], known(), NOW)
    assert results(planned) == [OutcomeCode.UNKNOWN_PLAYER, OutcomeCode.POSTED]


def test_player_without_a_wallet_in_the_currency_is_not_an_unknown_player() -> None:
    planned = plan([win("a", currency="USD"), WIN], known(), NOW)
    assert results(planned) == [OutcomeCode.WRONG_CURRENCY, OutcomeCode.POSTED]


def test_rejected_win_may_be_sent_again_with_other_content() -> None:
    planned = plan([win(currency="USD"), WIN], known(), NOW)
    assert results(planned) == [OutcomeCode.WRONG_CURRENCY, OutcomeCode.POSTED]


def test_win_of_a_closed_session_is_paid_unless_it_asks_for_an_open_one() -> None:
    closed = plan([win("a", session_id="s"), win("b", session_id="s", open_session_only=True)], known(), NOW)
    assert results(closed) == [OutcomeCode.POSTED, OutcomeCode.SESSION_CLOSED]
    open_ = known(open_sessions={("klas", "s")})
    assert results(plan([win(session_id="s", open_session_only=True)], open_, NOW)) == [OutcomeCode.POSTED]


def test_repeat_is_answered_though_its_session_has_closed() -> None:
    again = known(transfers={WIN.identity: posted()})
    assert results(plan([win(session_id="s", open_session_only=True)], again, NOW)) == [OutcomeCode.REPLAYED]


def test_transfers_are_written_in_one_order_whatever_the_order_of_the_batch() -> None:
    batch = [win(f"win-{n}", integration=i) for n in range(5) for i in ("klas", "gpas")]
    rows = plan(batch, known(), NOW).transfer_rows
    assert [(row.integration, row.provider_tx_id) for row in rows] == sorted(credit.identity for credit in batch)


wins = st.builds(
    win,
    st.sampled_from(["w1", "w2", "w3", "w4"]),
    amount_minor=st.sampled_from([0, 1, 1050]),
    wallet=st.sampled_from(Wallet),
    player_id=st.sampled_from(["anna", "nobody"]),
)


@given(batch=st.lists(wins, max_size=30))
def test_any_batch_moves_exactly_what_its_replies_say(batch: list[Credit]) -> None:
    ledger = known()
    planned = plan(batch, ledger, NOW)
    paid = [receipt(o) for o in planned.outcomes if o.code is OutcomeCode.POSTED]
    assert len(planned.outcomes) == len(batch)
    assert sum(entry.amount_minor for entry in planned.entry_rows) == sum(r.real_minor + r.bonus_minor for r in paid)
    assert (
        len({(row.integration, row.provider_tx_id) for row in planned.transfer_rows})
        == len(planned.transfer_rows)
        == len(paid)
    )
    balances = ledger.accounts["anna", "EUR"]
    assert balances[Wallet.REAL].balance_minor == sum(r.real_minor for r in paid)
    assert balances[Wallet.BONUS].balance_minor == sum(r.bonus_minor for r in paid)
