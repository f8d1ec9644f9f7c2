"""The ledger once more, in dictionaries: what must come of any credit. It trusts nothing of the real one."""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from shared.operations import Credit, Wallet
from shared.outcome import Balance, Outcome, OutcomeCode, Receipt

BALANCE_MAX: Final = 999_999_999_999_999_999
"""18 digits, written out."""

Identity = tuple[str, str]
Offer = frozenset[tuple[str, object]]
"""The fields of a conflict that differed, with what was sent."""


@dataclass(slots=True)
class Posted:
    """A credit that was paid, what its reply says but for our own id, and whether its round was closed."""

    credit: Credit
    receipt: Receipt
    after_round_closed: bool


@dataclass(slots=True)
class Model:
    """What the ledger holds."""

    balances: dict[tuple[str, str, Wallet], int] = field(default_factory=dict)
    """By player, currency and kind."""

    own_currencies: dict[str, str] = field(default_factory=dict)
    """By player."""

    open_sessions: set[tuple[str, str | None]] = field(default_factory=set)
    """By integration and id."""

    posted: dict[Identity, Posted] = field(default_factory=dict)
    conflicts: set[tuple[Identity, Offer]] = field(default_factory=set)

    def add_player(self, player_id: str, currency: str) -> None:
        """Open a player's wallets in a currency."""
        self.own_currencies.setdefault(player_id, currency)
        for wallet in Wallet:
            self.balances.setdefault((player_id, currency, wallet), 0)

    def post(self, credit: Credit) -> Outcome:
        """Pay a credit or say why not; a receipt's transfer id is empty."""
        first = self.posted.get(credit.identity)
        if first is not None:
            return self._repeat(credit, first)
        reason = self._reason_against(credit)
        if reason is not None:
            return Outcome(reason)
        self.balances[credit.player_id, credit.currency, credit.wallet] += credit.amount_minor
        posted = Posted(credit, self._receipt(credit), self._round_is_closed(credit))
        self.posted[credit.identity] = posted
        return Outcome(OutcomeCode.POSTED, posted.receipt)

    def holder(self, player_id: str) -> Balance | None:
        """Return what a player has in their own currency."""
        currency = self.own_currencies.get(player_id)
        return None if currency is None else Balance(player_id, currency, *self._pair(player_id, currency))

    def _repeat(self, credit: Credit, first: Posted) -> Outcome:
        differing = tuple(f for f in Credit.FINGERPRINT if getattr(credit, f) != getattr(first.credit, f))
        if not differing:
            return Outcome(OutcomeCode.REPLAYED, first.receipt)
        offer = frozenset((f, getattr(credit, f)) for f in differing)
        self.conflicts.add((credit.identity, offer))
        return Outcome(OutcomeCode.CONFLICT, mismatched_fields=differing)

    def _reason_against(self, credit: Credit) -> OutcomeCode | None:
        if credit.player_id not in self.own_currencies:
            return OutcomeCode.UNKNOWN_PLAYER
        if (credit.player_id, credit.currency, Wallet.REAL) not in self.balances:
            return OutcomeCode.WRONG_CURRENCY
        if credit.open_session_only and (credit.integration, credit.session_id) not in self.open_sessions:
            return OutcomeCode.SESSION_CLOSED
        if sum(self._pair(credit.player_id, credit.currency)) + credit.amount_minor > BALANCE_MAX:
            return OutcomeCode.BALANCE_LIMIT
        return None

    def _receipt(self, credit: Credit) -> Receipt:
        real, bonus = (credit.amount_minor if wallet is credit.wallet else 0 for wallet in Wallet)
        return Receipt("", credit.currency, real, bonus, *self._pair(credit.player_id, credit.currency))

    def _round_is_closed(self, credit: Credit) -> bool:
        return credit.round_id is not None and any(
            p.credit.round_closed
            and (p.credit.integration, p.credit.round_id, p.credit.player_id)
            == (credit.integration, credit.round_id, credit.player_id)
            for p in self.posted.values()
        )

    def _pair(self, player_id: str, currency: str) -> tuple[int, int]:
        real, bonus = (self.balances[player_id, currency, wallet] for wallet in Wallet)
        return real, bonus


def without_transfer_id(outcome: Outcome) -> Outcome:
    """Return an outcome as the model says it: our ids are not for it to know."""
    if outcome.receipt is None:
        return outcome
    return msgspec.structs.replace(outcome, receipt=msgspec.structs.replace(outcome.receipt, transfer_id=""))
