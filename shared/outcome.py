"""What became of a credit, and every end that a callback can have."""

from enum import StrEnum

import msgspec


class OutcomeCode(StrEnum):
    """Every end of a callback. Each provider's table of codes has a row for each of them."""

    POSTED = "posted"
    REPLAYED = "replayed"
    """Same id, same content: the original transfer's receipt is told again."""

    CONFLICT = "conflict"
    """Same id, other content: nothing moved."""

    UNKNOWN_PLAYER = "unknown_player"
    UNKNOWN_SESSION = "unknown_session"
    SESSION_CLOSED = "session_closed"
    WRONG_CURRENCY = "wrong_currency"
    """The player has no wallet in the credit's currency."""

    BALANCE_LIMIT = "balance_limit"
    """The balance would exceed 18 digits of minor units."""

    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_CALLER = "unknown_caller"
    """The agent, merchant or parent system is not the configured one."""

    MALFORMED = "malformed"
    INVALID_TX_ID = "invalid_tx_id"
    UNAVAILABLE = "unavailable"
    """No answer in time, or no ledger: the money may have moved, and the provider must ask again."""

    UNPOSTABLE = "unpostable"
    """The ledger can't take this credit as it is; it is kept for a person to look at."""


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """What a posted transfer did, as every reply about it must say, now and at any repeat."""

    transfer_id: str
    currency: str
    real_minor: int
    bonus_minor: int
    real_balance_minor: int
    bonus_balance_minor: int

    @property
    def balance_minor(self) -> int:
        """The player's whole balance right after the transfer."""
        return self.real_balance_minor + self.bonus_balance_minor


class Outcome(msgspec.Struct, frozen=True, array_like=True, tag="outcome"):
    """The ledger's answer to a credit. POSTED and REPLAYED carry a receipt, and only they."""

    code: OutcomeCode
    receipt: Receipt | None = None
    mismatched_fields: tuple[str, ...] = ()
    """For CONFLICT: the fields of the fingerprint that differ from the posted transfer's."""

    detail: str = ""
    """For people: what is wrong with the request, without anything secret."""


class Holder(msgspec.Struct, frozen=True, array_like=True, tag="holder"):
    """The ledger's answer to a question about a player: who holds the wallets, and what is in them."""

    player_id: str
    currency: str
    real_balance_minor: int
    bonus_balance_minor: int

    @property
    def balance_minor(self) -> int:
        """The player's whole balance."""
        return self.real_balance_minor + self.bonus_balance_minor
