"""The rules of the ledger: what an operation moves, or why it moves nothing. Pure functions, without I/O.

`decide` is total: there is a rule for each kind of operation. The planner applies the decision, so that no rule
needs to know of rows, versions or the settlement account, whose movement is minus the sum of the others.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from shared.money import MINOR_MAX
from shared.operations import AnyOperation, Credit, Wallet
from shared.outcome import OutcomeCode
from worker.ledger.state import LedgerState, PlayerWallets, Transfer


class Movement(NamedTuple):
    """An amount that a wallet gains, or loses where it is negative."""

    wallet: Wallet
    amount_minor: int


class Posting(NamedTuple):
    """The operation is new and right: its movements are to be posted. There are none of a zero amount."""

    movements: tuple[Movement, ...]


class Replay(NamedTuple):
    """The operation is posted already, with the same content."""

    transfer: Transfer


class Conflict(NamedTuple):
    """The identity, or the signed message, has posted other content."""

    transfer: Transfer
    mismatched_fields: tuple[str, ...]


class Refusal(NamedTuple):
    """The operation is not to be posted."""

    code: OutcomeCode


Decision = Posting | Replay | Conflict | Refusal


def decide(operation: AnyOperation, state: LedgerState) -> Decision:
    """Return what becomes of an operation, given what the ledger holds and the batch has posted so far."""
    if (transfer := state.transfers.get(operation.identity)) is not None:
        return replay_or_conflict(operation, transfer)
    signed = operation.signed_identity
    if signed is not None and (transfer := state.signed.get(signed)) is not None:
        return signed_conflict(operation, transfer)
    return RULES[type(operation)](operation, state)


def replay_or_conflict(operation: AnyOperation, transfer: Transfer) -> Replay | Conflict:
    """Compare an operation with the transfer of the same identity."""
    mismatched = _mismatched_fields(operation, transfer)
    return Conflict(transfer, mismatched) if mismatched else Replay(transfer)


def signed_conflict(operation: AnyOperation, transfer: Transfer) -> Conflict:
    """Refuse a new identity whose signed message has posted a transfer: one message posts once."""
    return Conflict(transfer, ("provider_tx_id", *_mismatched_fields(operation, transfer)))


def _mismatched_fields(operation: AnyOperation, transfer: Transfer) -> tuple[str, ...]:
    return tuple(name for name in operation.FINGERPRINT if getattr(operation, name) != getattr(transfer, name))


def _decide_credit(credit: Credit, state: LedgerState) -> Posting | Refusal:
    """Pay a win: no bet and, unless the provider's protocol demands it, no open session is needed."""
    wallets = state.accounts.get((credit.player_id, credit.currency))
    if wallets is None:
        exists = credit.player_id in state.players
        return Refusal(OutcomeCode.WRONG_CURRENCY if exists else OutcomeCode.UNKNOWN_PLAYER)
    if credit.open_session_only and (credit.integration, credit.session_id) not in state.open_sessions:
        return Refusal(OutcomeCode.SESSION_CLOSED)
    if _held_minor(wallets) + credit.amount_minor > MINOR_MAX:
        return Refusal(OutcomeCode.BALANCE_LIMIT)
    return Posting((Movement(credit.wallet, credit.amount_minor),) if credit.amount_minor else ())


def _held_minor(wallets: PlayerWallets) -> int:
    return wallets[Wallet.REAL].balance_minor + wallets[Wallet.BONUS].balance_minor


RULES: Final[Mapping[type[Any], Callable[[Any, LedgerState], Posting | Refusal]]] = {Credit: _decide_credit}
"""The rule of each kind of operation, for one whose identity and signed message are new."""
