"""A cache of wallets as this process last left them, which spares a batch reading what was written here."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from shared.operations import Wallet
from shared.runtime import evict_oldest
from worker.ledger.state import AccountKey, PlayerWallets, WalletState

ACCOUNTS_MAX: Final = 10_000
"""The number of accounts that are kept, some 10 MB; the wallets of others are read before they are planned."""


class WalletCache:
    """The wallets that this process wrote last. They may be out of date: the statement compares before it writes."""

    def __init__(self) -> None:
        """Begin empty."""
        self._accounts: Final[dict[AccountKey, PlayerWallets]] = {}

    def pop(self, keys: Collection[AccountKey]) -> dict[AccountKey, PlayerWallets]:
        """Return the accounts that are here, and forget them until they are stored again."""
        return {key: self._accounts.pop(key) for key in keys if key in self._accounts}

    def store(self, accounts: Mapping[AccountKey, PlayerWallets]) -> None:
        """Remember accounts that were written. Beyond the bound, those stored longest ago are forgotten."""
        for account in accounts.values():
            for wallet in account.values():
                wallet.mark_written()
        self._accounts.update(accounts)
        evict_oldest(self._accounts, ACCOUNTS_MAX)


def read_accounts(rows: Iterable[Any]) -> dict[AccountKey, PlayerWallets]:
    """Read rows of (wallet_id, player_id, currency, kind, balance_minor, version)."""
    accounts: dict[AccountKey, dict[Wallet, WalletState]] = {}
    for wallet_id, player_id, currency, kind, balance_minor, version in rows:
        account = accounts.setdefault((player_id, currency), {})
        account[Wallet(kind)] = WalletState(wallet_id, balance_minor, version)
    return dict(accounts)
