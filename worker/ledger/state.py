"""What the ledger holds about a batch while the batch is planned."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

import msgspec

from shared.operations import Wallet
from shared.outcome import Receipt

Identity = tuple[str, str]
"""Integration and provider_tx_id."""

SignedIdentity = tuple[str, bytes]
"""Integration and digest of a signed message."""

AccountKey = tuple[str, str]
"""Player and currency."""


class Transfer(msgspec.Struct, frozen=True, array_like=True):
    """A posted operation with its content and its receipt, as the ledger's row and as a cached value."""

    id: str
    player_id: str
    currency: str
    amount_minor: int
    kind: str
    round_id: str | None
    game_id: str | None
    bet_id: str | None
    real_minor: int
    bonus_minor: int
    real_balance_minor: int
    bonus_balance_minor: int

    @property
    def receipt(self) -> Receipt:
        """What every reply about this transfer repeats."""
        return Receipt(
            self.id,
            self.currency,
            self.real_minor,
            self.bonus_minor,
            self.real_balance_minor,
            self.bonus_balance_minor,
        )


class WalletState:
    """A wallet while a batch is planned: its row as it was found, and as the batch will leave it."""

    __slots__ = ("balance_minor", "found_minor", "found_version", "version", "wallet_id")

    def __init__(self, wallet_id: UUID, balance_minor: int, version: int) -> None:
        """Take the row as it was found."""
        self.wallet_id: Final = wallet_id
        self.found_minor = self.balance_minor = balance_minor
        self.found_version = self.version = version

    def move(self, amount_minor: int) -> None:
        """Add an amount, which may be negative, as the wallet's next entry."""
        self.balance_minor += amount_minor
        self.version += 1

    def mark_written(self) -> None:
        """Take the row as the batch has left it for the one that the next batch will find."""
        self.found_minor, self.found_version = self.balance_minor, self.version


PlayerWallets = Mapping[Wallet, WalletState]
"""A player's two wallets in one currency."""


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the ledger holds about a batch. Planning adds to `transfers` and `signed` what it posts."""

    accounts: Mapping[AccountKey, PlayerWallets]

    transfers: dict[Identity, Transfer] = field(default_factory=dict)
    """The transfers of the batch's identities that are posted already."""

    signed: dict[SignedIdentity, Transfer] = field(default_factory=dict)
    """The transfers that the batch's signed messages have paid already, under whatever id."""

    players: Collection[str] = frozenset()
    """Those of the batch's players that exist, whether or not they have a wallet in the currency."""

    open_sessions: Collection[tuple[str, str]] = frozenset()
    """By integration and session; only of operations that need theirs open."""
