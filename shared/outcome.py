"""The outcomes of operations, and the codes for every way in which a callback can end."""

from enum import StrEnum

import msgspec


class OutcomeCode(StrEnum):
    """The ways in which a callback can end. Each provider's table of codes has a row for each of them."""

    POSTED = "posted"
    REPLAYED = "replayed"
    """Same id, same content: the reply repeats the receipt of the original transfer."""

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
    """No reply in time, or no ledger: the money may have moved, and the provider must send the request again."""

    UNPOSTABLE = "unpostable"
    """The ledger can't post this operation as it is; it is kept as a dead letter."""


class Receipt(msgspec.Struct, frozen=True, array_like=True):
    """What a posted transfer moved, and the balances after it: every reply about it repeats this."""

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
    """The ledger's reply to an operation. POSTED and REPLAYED have a receipt, and only they do."""

    code: OutcomeCode
    receipt: Receipt | None = None
    mismatched_fields: tuple[str, ...] = ()
    """For CONFLICT: the fields of the fingerprint that differ from the posted transfer's."""

    detail: str = ""
    """A sentence for people about what is wrong with the request; it contains no secret."""


class Balance(msgspec.Struct, frozen=True, array_like=True, tag="holder"):
    """The ledger's reply to a query: the player, and the balances of the wallets in one currency."""

    player_id: str
    currency: str
    real_balance_minor: int
    bonus_balance_minor: int

    @property
    def balance_minor(self) -> int:
        """The player's whole balance."""
        return self.real_balance_minor + self.bonus_balance_minor
