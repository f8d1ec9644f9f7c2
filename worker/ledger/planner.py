"""Planning a batch: which operations become transfers, what they leave in the wallets, what the replies are.

Pure: no I/O. `plan` applies the decision of `rules` to each operation in the batch's order, and collects the rows
to write. The transaction around it is in `transaction`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, assert_never
from uuid import UUID

import msgspec
from uuid_utils import uuid7

from shared.ids import ID_CHARACTERS_MAX
from shared.operations import AnyOperation, Wallet
from shared.outcome import Outcome, OutcomeCode
from worker.ledger.rows import ConflictRow, EntryRow, Id, TransferRow, WalletRow
from worker.ledger.rules import Conflict, Movement, Posting, Refusal, Replay, decide
from worker.ledger.state import AccountKey, Identity, LedgerState, PlayerWallets, SignedIdentity, Transfer

OFFERED_BYTES_MAX: Final = 2_500
"""The bound on a conflict's content as it is kept: PostgreSQL's index holds 2,704 bytes with the transfer's id."""


@dataclass(slots=True)
class Plan:
    """The rows to write, and the outcomes to reply."""

    posted_at: datetime
    transfers: dict[Identity, Transfer]
    """Every transfer that the batch's outcomes are about, posted by it or before it."""

    signed: dict[SignedIdentity, Transfer]
    """Every transfer that a signed message of the batch has paid, by it or before it."""

    outcomes: list[Outcome] = field(default_factory=list)
    transfer_rows: list[TransferRow] = field(default_factory=list)
    entry_rows: list[EntryRow] = field(default_factory=list)
    """The entries on wallets. Each has a counterpart on the settlement account, see `rows.settlement_entry`."""

    wallet_rows: list[WalletRow] = field(default_factory=list)
    """All wallets of `accounts`."""

    conflict_rows: list[ConflictRow] = field(default_factory=list)
    accounts: dict[AccountKey, PlayerWallets] = field(default_factory=dict)
    """The wallets of the operations that are posted. They must still be as found, or else nothing is written."""

    cacheable: dict[Identity, Transfer] = field(default_factory=dict)
    """The transfers whose outcome may be cached."""

    needs_reading: bool = False
    """Whether an outcome holds only after the posted transfers, players and sessions have been read. A refusal
    leaves no row, so that no unique index would tell that the operation was posted before."""

    copy: str = ""
    """The copy of the books on which it was carried out, see `worker.database.replication.State`."""

    closed_rounds: set[tuple[str, str | None, str]] = field(default_factory=set)
    """The rounds that this batch closes, by integration, round and player."""

    @property
    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.transfer_rows or self.conflict_rows)


def plan(operations: Sequence[AnyOperation], known: LedgerState, posted_at: datetime) -> Plan:
    """Plan a batch. An operation sees those before it; one that can't be posted takes nothing from the others."""
    state = LedgerState(known.accounts, dict(known.transfers), dict(known.signed), known.players, known.open_sessions)
    made = Plan(posted_at, state.transfers, state.signed)
    for operation in operations:
        made.outcomes.append(_apply(operation, state, made))
    # Sorted, so that two workers with the same ids wait for each other in one direction only.
    made.transfer_rows.sort(key=_identity)
    made.wallet_rows = [
        WalletRow(w.wallet_id, w.balance_minor, w.version, w.found_minor, w.found_version)
        for account in made.accounts.values()
        for w in account.values()
    ]
    return made


def _identity(row: TransferRow) -> Identity:
    return row.integration, row.provider_tx_id


def _apply(operation: AnyOperation, state: LedgerState, made: Plan) -> Outcome:
    """Carry out the decision on one operation within the plan."""
    decision = decide(operation, state)
    if isinstance(decision, Posting):  # almost all are; a match would cost them a tenth of a plan
        return Outcome(OutcomeCode.POSTED, _post(operation, decision.movements, state, made).receipt)
    match decision:
        case Replay(transfer):
            if operation.IS_CACHEABLE:
                made.cacheable[operation.identity] = transfer
            return Outcome(OutcomeCode.REPLAYED, transfer.receipt)
        case Conflict(transfer, mismatched):
            offered = _offered(operation, mismatched)
            made.conflict_rows.append(ConflictRow(UUID(transfer.id), offered, made.posted_at))
            made.needs_reading = True
            return Outcome(OutcomeCode.CONFLICT, mismatched_fields=mismatched)
        case Refusal(code):
            made.needs_reading = True
            return Outcome(code)
        case never:
            assert_never(never)


def _offered(operation: AnyOperation, mismatched: Sequence[str]) -> str:
    """Return the mismatched fields as they are kept: long texts cut, if all of it is too long."""
    fields = {name: getattr(operation, name) for name in mismatched}
    offered = _json.encode(fields)
    if len(offered) > OFFERED_BYTES_MAX:
        cut = {k: v[:ID_CHARACTERS_MAX] if isinstance(v, str) else v for k, v in fields.items()}
        offered = _json.encode(cut)
    return offered.decode()


def _post(operation: AnyOperation, movements: tuple[Movement, ...], state: LedgerState, made: Plan) -> Transfer:
    """Move the wallets, and add the transfer and its entries to the plan."""
    transfer_id, key = uuid7(), (operation.player_id, operation.currency)
    wallets = made.accounts[key] = state.accounts[key]
    real_minor = bonus_minor = 0
    for wallet, amount_minor in movements:
        moved = wallets[wallet]
        moved.move(amount_minor)
        if wallet is Wallet.REAL:
            real_minor += amount_minor
        else:
            bonus_minor += amount_minor
        made.entry_rows.append(
            EntryRow(transfer_id, wallet, moved.wallet_id, amount_minor, moved.balance_minor, moved.version)
        )
    transfer = Transfer(
        id=str(transfer_id),
        player_id=operation.player_id,
        currency=operation.currency,
        amount_minor=operation.amount_minor,
        kind=operation.kind,
        round_id=operation.round_id,
        game_id=operation.game_id,
        bet_id=operation.bet_id,
        real_minor=real_minor,
        bonus_minor=bonus_minor,
        real_balance_minor=wallets[Wallet.REAL].balance_minor,
        bonus_balance_minor=wallets[Wallet.BONUS].balance_minor,
    )
    made.transfer_rows.append(_transfer_row(transfer_id, operation, transfer, made))
    made.transfers[operation.identity] = transfer
    if operation.IS_CACHEABLE:
        made.cacheable[operation.identity] = transfer
    if (signed := operation.signed_identity) is not None:
        made.signed[signed] = transfer
    return transfer


def _transfer_row(transfer_id: Id, operation: AnyOperation, transfer: Transfer, made: Plan) -> TransferRow:
    player_round = operation.integration, operation.round_id, operation.player_id
    row = TransferRow(  # in the order of its fields: keywords would take as long as the rest of a plan
        transfer_id,
        operation.integration,
        operation.provider_tx_id,
        transfer.player_id,
        transfer.currency,
        transfer.amount_minor,
        transfer.kind,
        transfer.round_id,
        transfer.game_id,
        transfer.bet_id,
        transfer.real_minor,
        transfer.bonus_minor,
        transfer.real_balance_minor,
        transfer.bonus_balance_minor,
        operation.round_closed,
        operation.session_id,
        _json.encode(operation.details).decode(),
        operation.signed_digest,
        player_round in made.closed_rounds,
    )
    if operation.round_closed and operation.round_id is not None:
        made.closed_rounds.add(player_round)
    return row


_json: Final = msgspec.json.Encoder()
