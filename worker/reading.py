"""What the books hold about a player or a transfer, for people and programs that ask."""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import MoneyError
from shared.money import Currencies
from worker.database import outages_as_unavailable, snapshot, utc
from worker.schema import SETTLEMENT, conflicts, entries, players, transfers, wallets


class Amount(msgspec.Struct, frozen=True):
    """An amount of money as it is shown."""

    minor: int
    currency: str
    text: str | None
    """Decimal, with all the decimals of the currency; None if the currency is in no setting any more."""

    def __str__(self) -> str:
        return f"{self.text or f'{self.minor} minor units of'} {self.currency}"


def amount_of(currencies: Currencies, minor: int, currency: str) -> Amount:
    """Return an amount as it is shown.

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
    """A transfer, in a list of them."""

    transfer_id: str
    integration: str
    provider_tx_id: str
    kind: str
    amount: Amount
    balance: Amount
    """The player's whole balance in the currency right after it."""

    posted_at: datetime


class PlayerView(msgspec.Struct, frozen=True):
    """A player, with all wallets and the last transfers."""

    player_id: str
    currency: str
    created_at: datetime
    wallets: list[WalletView]
    transfers: list[TransferLine]


class EntryView(msgspec.Struct, frozen=True):
    """One leg of a transfer."""

    account: str
    wallet_id: str | None
    amount: Amount
    balance: Amount | None
    """The wallet's, right after this entry; the settlement account keeps none."""

    wallet_version: int | None


class ConflictView(msgspec.Struct, frozen=True):
    """A repeat of a transfer's id with other content: nothing moved."""

    offered: dict[str, Any]
    """The fields that differed, as they were sent."""

    first_seen_at: datetime


class RoundView(msgspec.Struct, frozen=True):
    """The wins of one round, by one player or by many."""

    integration: str
    round_id: str
    wins: list["RoundWin"]


class RoundWin(msgspec.Struct, frozen=True):
    """A win of a round."""

    transfer_id: str
    provider_tx_id: str
    player_id: str
    kind: str
    amount: Amount
    bet_id: str | None
    closed_round: bool
    """The provider said that it was the player's last of the round."""

    after_round_closed: bool
    """It came after that, and was paid all the same."""

    posted_at: datetime


class TransferView(msgspec.Struct, frozen=True):
    """A transfer, whole."""

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
    posted_at: datetime
    details: dict[str, Any]
    entries: list[EntryView]
    conflicts: list[ConflictView]


async def show_player(
    engine: AsyncEngine, currencies: Currencies, player_id: str, transfers_max: int = 10
) -> PlayerView | None:
    """Return a player with at most `transfers_max` transfers, newest first. Raises LedgerUnavailable."""
    with outages_as_unavailable():
        async with snapshot(engine) as connection:
            player = (
                await connection.execute(select(players).where(players.c.id == player_id))
            ).one_or_none()
            if player is None:
                return None
            held = await connection.execute(
                select(wallets)
                .where(wallets.c.player_id == player_id)
                .order_by(wallets.c.currency, wallets.c.kind.desc())
            )
            last = await connection.execute(
                select(transfers)
                .where(transfers.c.player_id == player_id)
                .order_by(transfers.c.id.desc())
                .limit(transfers_max)
            )
            return PlayerView(
                player_id=player_id,
                currency=player.currency,
                created_at=utc(player.created_at),
                wallets=[_wallet(currencies, row) for row in held],
                transfers=[_line(currencies, row) for row in last],
            )


async def show_transfer(
    engine: AsyncEngine, currencies: Currencies, integration: str, provider_tx_id: str
) -> TransferView | None:
    """Return a transfer with its entries, or None if no such credit is posted. Raises LedgerUnavailable."""
    identity = and_(transfers.c.integration == integration, transfers.c.provider_tx_id == provider_tx_id)
    first = select(transfers).where(identity).order_by(transfers.c.id)
    with outages_as_unavailable():
        async with snapshot(engine) as connection:
            row = (await connection.execute(first)).first()
            if row is None:
                return None
            legs = await _entries(connection, currencies, row)
            return _transfer(currencies, row, legs, await _conflicts(connection, row))


async def show_round(
    engine: AsyncEngine, currencies: Currencies, integration: str, round_id: str, wins_max: int = 1_000
) -> RoundView | None:
    """Return a round with at most `wins_max` wins, oldest first; None if it has none. LedgerUnavailable."""
    of_round = and_(transfers.c.integration == integration, transfers.c.round_id == round_id)
    wins = select(transfers).where(of_round).order_by(transfers.c.id).limit(wins_max)
    with outages_as_unavailable():
        async with snapshot(engine) as connection:
            found = [_round_win(currencies, row) for row in await connection.execute(wins)]
    return RoundView(integration, round_id, found) if found else None


def _round_win(currencies: Currencies, row: Row[Any]) -> RoundWin:
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


def _wallet(currencies: Currencies, row: Row[Any]) -> WalletView:
    balance = amount_of(currencies, row.balance_minor, row.currency)
    return WalletView(str(row.id), row.kind, balance, row.version)


def _line(currencies: Currencies, row: Row[Any]) -> TransferLine:
    return TransferLine(
        transfer_id=str(row.id),
        integration=row.integration,
        provider_tx_id=row.provider_tx_id,
        kind=row.kind,
        amount=amount_of(currencies, row.amount_minor, row.currency),
        balance=amount_of(currencies, row.real_balance_minor + row.bonus_balance_minor, row.currency),
        posted_at=utc(row.posted_at),
    )


async def _entries(
    connection: AsyncConnection, currencies: Currencies, transfer: Row[Any]
) -> list[EntryView]:
    legs = await connection.execute(
        select(entries)
        .where(entries.c.transfer_id == transfer.id)
        .order_by(entries.c.account == SETTLEMENT, entries.c.account)
    )
    return [_entry(currencies, row, transfer.currency) for row in legs]


def _entry(currencies: Currencies, row: Row[Any], currency: str) -> EntryView:
    return EntryView(
        account=row.account,
        wallet_id=str(row.wallet_id) if row.wallet_id is not None else None,
        amount=amount_of(currencies, row.amount_minor, currency),
        balance=amount_of(currencies, row.balance_minor, currency) if row.balance_minor is not None else None,
        wallet_version=row.wallet_version,
    )


async def _conflicts(connection: AsyncConnection, transfer: Row[Any]) -> list[ConflictView]:
    seen = select(conflicts).where(conflicts.c.transfer_id == transfer.id).order_by(conflicts.c.first_seen_at)
    return [
        ConflictView(_details(row.offered), utc(row.first_seen_at)) for row in await connection.execute(seen)
    ]


def _transfer(
    currencies: Currencies, row: Row[Any], legs: list[EntryView], conflicting: list[ConflictView]
) -> TransferView:
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


def _details(stored: str) -> dict[str, Any]:
    return msgspec.json.decode(stored, type=dict[str, Any])
