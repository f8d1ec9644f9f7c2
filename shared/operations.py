"""The operations on a player's money: what every provider's callback is normalized to.

An operation declares which of its fields are its content, whether it is owed and whether its outcome may be
cached, so that the messages, the ledger and the cache handle all kinds alike. The rule that says what it moves
is in `worker.ledger.rules`.
"""

from enum import StrEnum
from typing import ClassVar

import msgspec


class Kind(StrEnum):
    """The source of a win."""

    WIN = "win"
    FREE_SPIN = "free_spin"
    REWARD = "reward"
    JACKPOT = "jackpot"


class Wallet(StrEnum):
    """The two wallets that a player has in each currency."""

    REAL = "REAL"
    BONUS = "BONUS"


class Operation(msgspec.Struct, frozen=True, array_like=True):
    """An instruction of one provider about one player's money, to be carried out once per identity."""

    FINGERPRINT: ClassVar[tuple[str, ...]]
    """The fields that a repeat must have in common with the first; those of the delivery are not among them."""

    IS_OWED: ClassVar[bool]
    """Whether it is carried out even after nobody waits for its outcome any more."""

    IS_CACHEABLE: ClassVar[bool]
    """Whether its outcome stays true, so that a cache may answer repeats."""

    integration: str
    provider_tx_id: str
    player_id: str
    currency: str

    @property
    def identity(self) -> tuple[str, str]:
        """The integration and the provider's id: the ledger posts one operation for each."""
        return self.integration, self.provider_tx_id


class Credit(Operation, frozen=True, array_like=True, tag="credit"):
    """A win to be paid. It is owed: the player has won it, whether or not anyone waits for the reply.

    New optional fields go last: this is also the layout of the messages, whose older readers pass over them.
    """

    FINGERPRINT = ("player_id", "currency", "amount_minor", "kind", "round_id", "game_id", "bet_id")
    IS_OWED = True
    IS_CACHEABLE = True

    amount_minor: int
    kind: Kind = Kind.WIN
    wallet: Wallet = Wallet.REAL
    round_id: str | None = None
    round_closed: bool = False
    game_id: str | None = None
    bet_id: str | None = None
    session_id: str | None = None
    open_session_only: bool = False
    """Post only while the session is open; a repeat of a posted credit is still answered."""

    details: dict[str, str] = {}
    """Further texts of the provider, kept for support staff and never interpreted."""

    signed_digest: bytes | None = None
    """SHA-256 of the signed message, where that message does not determine the fields that were signed. The
    ledger posts one content for each (integration, digest)."""

    @property
    def signed_identity(self) -> tuple[str, bytes] | None:
        """The integration and the digest, where the signed message may pay one content only."""
        return None if self.signed_digest is None else (self.integration, self.signed_digest)


AnyOperation = Credit
"""Every kind of operation that this version knows, as a union for decoders."""
