"""A credit: the canonical pay-out instruction that every provider's callback is normalized to."""

from enum import StrEnum
from typing import Final

import msgspec


class Kind(StrEnum):
    """What the win came from."""

    WIN = "win"
    FREE_SPIN = "free_spin"
    REWARD = "reward"
    JACKPOT = "jackpot"


class Wallet(StrEnum):
    """The two accounts that a player has in each currency."""

    REAL = "REAL"
    BONUS = "BONUS"


class Credit(msgspec.Struct, frozen=True, array_like=True, tag="credit"):
    """One win to be paid, exactly once per (integration, provider_tx_id)."""

    integration: str
    provider_tx_id: str
    player_id: str
    currency: str
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
    """What else the provider said, kept for support staff and never interpreted."""
    signed_digest: bytes | None = None
    """SHA-256 of the signed message where it does not determine the fields that were signed; the ledger
    posts one content for each (integration, digest)."""

    @property
    def identity(self) -> tuple[str, str]:
        """What money dedups on."""
        return self.integration, self.provider_tx_id

    @property
    def signed_identity(self) -> tuple[str, bytes] | None:
        """The integration and the digest, where the signed message may pay one content only."""
        return None if self.signed_digest is None else (self.integration, self.signed_digest)


FINGERPRINT: Final = ("player_id", "currency", "amount_minor", "kind", "round_id", "game_id", "bet_id")
"""The content that must match for a repeat to be a replay; the delivery's own fields are not in it."""
