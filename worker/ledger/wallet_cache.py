"""Accounts as this process last left them, so that a batch need not ask for what it wrote itself."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from shared.operations import Wallet
from shared.runtime import evict_oldest
from worker.ledger.planner import AccountKey, PlayerWallets, WalletState

ACCOUNTS_MAX: Final = 10_000
"""How many are remembered, some 10 MB; of others, the batch reads the wallets first."""


class WalletCache:
    """What is remembered proves nothing: the ledger writes only if it is what the wallets still hold."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._accounts: Final[dict[AccountKey, PlayerWallets]] = {}

    def pop(self, keys: Collection[AccountKey]) -> dict[AccountKey, PlayerWallets]:
        """Return those that are remembered, and forget them until they are kept again."""
        return {key: self._accounts.pop(key) for key in keys if key in self._accounts}

    def store(self, accounts: Mapping[AccountKey, PlayerWallets]) -> None:
        """Remember accounts that were written; beyond the bound, those kept longest ago are forgotten."""
        for account in accounts.values():
            for wallet in account.values():
                wallet.written()
        self._accounts.update(accounts)
        evict_oldest(self._accounts, ACCOUNTS_MAX)


def read_accounts(rows: Iterable[Any]) -> dict[AccountKey, PlayerWallets]:
    """Read rows of (wallet_id, player_id, currency, kind, balance_minor, version)."""
    accounts: dict[AccountKey, dict[Wallet, WalletState]] = {}
    for wallet_id, player_id, currency, kind, balance_minor, version in rows:
        account = accounts.setdefault((player_id, currency), {})
        account[Wallet(kind)] = WalletState(wallet_id, balance_minor, version)
    return dict(accounts)
