"""Views: the ledger's rows in the form in which the command line and the operator API show them."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from sqlalchemy import Row

from shared.errors import MoneyError
from shared.money import Currencies
from shared.operations import Wallet
from worker.database.engine import utc
from worker.queries.paging import LIMIT_MAX

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Amount(msgspec.Struct, frozen=True):
    """An amount of money, in minor units and as text."""

    minor: int
    currency: str
    text: str | None
    """The amount with all the decimals of the currency; None if the settings don't have the currency any more."""

    def __str__(self) -> str:
        return f"{self.text or f'{self.minor} minor units of'} {self.currency}"


def amount_of(currencies: Currencies, minor: int, currency: str) -> Amount:
    """Return the view of an amount.

    >>> str(amount_of(Currencies(), 1050, "EUR")), str(amount_of(Currencies(), 1050, "GONE"))
    ('10.50 EUR', '1050 minor units of GONE')
    """
    try:
        exponent = currencies.exponent(currency)
        whole, _, fraction = currencies.to_text(minor, currency).partition(".")
    except MoneyError:
        return Amount(minor, currency, None)
    return Amount(minor, currency, f"{whole}.{fraction.ljust(exponent, '0')}" if exponent else whole)


class WalletView(msgspec.Struct, frozen=True):
    """A wallet."""

    wallet_id: str
    kind: str
    balance: Amount
    entries: int


class TransferLine(msgspec.Struct, frozen=True):
    """A transfer, as a line of a list."""

    transfer_id: str
    integration: str
    provider_tx_id: str
    kind: str
    amount: Amount
    balance: Amount
    """The player's total balance in the currency right after the transfer."""

    posted_at: Moment


class WalletsView(msgspec.Struct, frozen=True):
    """A player's wallets."""

    player_id: str
    wallets: list[WalletView]


class BalanceView(msgspec.Struct, frozen=True):
    """A player's balances in one currency."""

    currency: str
    real: Amount
    bonus: Amount
    total: Amount


class BalancesView(msgspec.Struct, frozen=True):
    """A player's balances, by currency."""

    player_id: str
    balances: list[BalanceView]


class TransferPage(msgspec.Struct, frozen=True):
    """Transfers of a player, newest first."""

    transfers: Annotated[list[TransferLine], msgspec.Meta(max_length=LIMIT_MAX)]
    next_cursor: str | None
    """The cursor of the next page; None if there are no older transfers."""


class PlayerView(msgspec.Struct, frozen=True):
    """A player, with all wallets and the last transfers."""

    player_id: str
    currency: str
    created_at: Moment
    wallets: list[WalletView]
    transfers: list[TransferLine]


class EntryView(msgspec.Struct, frozen=True):
    """One leg of a transfer."""

    account: str
    wallet_id: str | None
    amount: Amount
    balance: Amount | None
    """The wallet's balance right after this entry; None for the settlement account, which has no stored balance."""

    wallet_version: int | None


class ConflictView(msgspec.Struct, frozen=True):
    """A request that repeated a transfer's id with other content, and moved nothing."""

    offered: dict[str, Any]
    """The fields that differed, with the values that were sent."""

    first_seen_at: Moment


class RoundView(msgspec.Struct, frozen=True):
    """The wins of one round, by one player or by many."""

    integration: str
    round_id: str
    wins: Annotated[list["RoundWin"], msgspec.Meta(max_length=LIMIT_MAX)]
    next_cursor: str | None
    """The cursor of the next page; None if no further wins are posted."""


class RoundWin(msgspec.Struct, frozen=True):
    """A win of a round."""

    transfer_id: str
    provider_tx_id: str
    player_id: str
    kind: str
    amount: Amount
    bet_id: str | None
    closed_round: bool
    """Whether the provider marked it as the player's last win of the round."""

    after_round_closed: bool
    """Whether it came after such a win; it was paid all the same."""

    posted_at: Moment


class TransferView(msgspec.Struct, frozen=True):
    """A transfer with all its fields, entries and conflicts."""

    transfer_id: str
    integration: str
    provider_tx_id: str
    player_id: str
    amount: Amount
    real: Amount
    bonus: Amount
    real_balance: Amount
    bonus_balance: Amount
    kind: str
    round_id: str | None
    round_closed: bool
    after_round_closed: bool
    game_id: str | None
    bet_id: str | None
    session_id: str | None
    posted_at: Moment
    details: dict[str, Any]
    entries: list[EntryView]
    conflicts: list[ConflictView]


class TransferAnswer(msgspec.Struct, frozen=True):
    """Whether a win was posted, and its transfer."""

    posted: bool
    integration: str
    provider_tx_id: str
    transfer: TransferView | None


def with_cell(answer: Any, cell: str | None) -> Any:
    """Return an answer with the name of the cell that it is from; unchanged if there are no cells."""
    return answer if cell is None else {"cell": cell, **msgspec.to_builtins(answer)}


def round_win(currencies: Currencies, row: Row[Any]) -> RoundWin:
    """Return the view of a row of `transfers` as a win of its round."""
    return RoundWin(
        transfer_id=str(row.id),
        provider_tx_id=row.provider_tx_id,
        player_id=row.player_id,
        kind=row.kind,
        amount=amount_of(currencies, row.amount_minor, row.currency),
        bet_id=row.bet_id,
        closed_round=row.round_closed,
        after_round_closed=row.after_round_closed,
        posted_at=utc(row.posted_at),
    )


def wallet_view(currencies: Currencies, row: Row[Any]) -> WalletView:
    """Return the view of a row of `wallets`."""
    balance = amount_of(currencies, row.balance_minor, row.currency)
    return WalletView(str(row.id), row.kind, balance, row.version)


def balance_view(currencies: Currencies, wallets: Iterable[Row[Any]]) -> BalanceView:
    """Return the view of the rows of `wallets` that a player has in one currency."""
    by_kind = {row.kind: row for row in wallets}
    currency = next(iter(by_kind.values())).currency
    real, bonus = (by_kind[kind].balance_minor if kind in by_kind else 0 for kind in Wallet)
    return BalanceView(currency, *(amount_of(currencies, minor, currency) for minor in (real, bonus, real + bonus)))


def transfer_line(currencies: Currencies, row: Row[Any]) -> TransferLine:
    """Return the view of a row of `transfers` as a line of a list."""
    return TransferLine(
        transfer_id=str(row.id),
        integration=row.integration,
        provider_tx_id=row.provider_tx_id,
        kind=row.kind,
        amount=amount_of(currencies, row.amount_minor, row.currency),
        balance=amount_of(currencies, row.real_balance_minor + row.bonus_balance_minor, row.currency),
        posted_at=utc(row.posted_at),
    )


def entry_view(currencies: Currencies, row: Row[Any], currency: str) -> EntryView:
    """Return the view of a row of `entries` whose transfer is in `currency`."""
    return EntryView(
        account=row.account,
        wallet_id=str(row.wallet_id) if row.wallet_id is not None else None,
        amount=amount_of(currencies, row.amount_minor, currency),
        balance=amount_of(currencies, row.balance_minor, currency) if row.balance_minor is not None else None,
        wallet_version=row.wallet_version,
    )


def transfer_view(
    currencies: Currencies, row: Row[Any], legs: list[EntryView], conflicting: list[ConflictView]
) -> TransferView:
    """Return the view of a row of `transfers`, with those of its entries and conflicts."""

    def amount(name: str) -> Amount:
        return amount_of(currencies, row._mapping[name], row.currency)  # noqa: SLF001  (SQLAlchemy's public name)

    return TransferView(
        transfer_id=str(row.id),
        integration=row.integration,
        provider_tx_id=row.provider_tx_id,
        player_id=row.player_id,
        amount=amount("amount_minor"),
        real=amount("real_minor"),
        bonus=amount("bonus_minor"),
        real_balance=amount("real_balance_minor"),
        bonus_balance=amount("bonus_balance_minor"),
        kind=row.kind,
        round_id=row.round_id,
        round_closed=row.round_closed,
        after_round_closed=row.after_round_closed,
        game_id=row.game_id,
        bet_id=row.bet_id,
        session_id=row.session_id,
        posted_at=utc(row.posted_at),
        details=_details(row.details),
        entries=legs,
        conflicts=conflicting,
    )


def conflict_view(row: Row[Any]) -> ConflictView:
    """Return the view of a row of `conflicts`."""
    return ConflictView(_details(row.offered), utc(row.first_seen_at))


def _details(stored: str) -> dict[str, Any]:
    return msgspec.json.decode(stored, type=dict[str, Any])
