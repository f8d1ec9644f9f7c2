"""Queries of the ledger about players, transfers and rounds, for the command line and the operator API.

Each reads one snapshot, blocks no writer, and raises LedgerUnavailable if the database does not answer.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.money import Currencies
from worker.database.engine import utc
from worker.database.faults import outages_as_unavailable
from worker.database.schema import CONFLICTS_MAX, SETTLEMENT, conflicts, entries, players, transfers, wallets
from worker.database.transactions import confirmed_snapshot
from worker.queries.paging import Page, cut_page, read_cursor
from worker.queries.views import (
    BalancesView,
    ConflictView,
    EntryView,
    PlayerView,
    RoundView,
    TransferAnswer,
    TransferPage,
    WalletsView,
    balance_view,
    conflict_view,
    entry_view,
    round_win,
    transfer_line,
    transfer_view,
    wallet_view,
)


async def show_player(
    engine: AsyncEngine, currencies: Currencies, player_id: str, transfers_max: int = 10
) -> PlayerView | None:
    """Return a player with at most `transfers_max` transfers, newest first; None if there is no such player."""
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            player = await _player(connection, player_id)
            if player is None:
                return None
            wallet_rows = await connection.execute(_wallets_of(player_id))
            last = await connection.execute(_transfers_of(player_id, None, transfers_max))
            return PlayerView(
                player_id=player_id,
                currency=player.currency,
                created_at=utc(player.created_at),
                wallets=[wallet_view(currencies, row) for row in wallet_rows],
                transfers=[transfer_line(currencies, row) for row in last],
            )


async def show_wallets(engine: AsyncEngine, currencies: Currencies, player_id: str) -> WalletsView | None:
    """Return a player's wallets; None if there is no such player."""
    rows = await _wallet_rows(engine, player_id)
    if rows is None:
        return None
    return WalletsView(player_id, [wallet_view(currencies, row) for row in rows])


async def show_balances(engine: AsyncEngine, currencies: Currencies, player_id: str) -> BalancesView | None:
    """Return a player's balances in each currency; None if there is no such player."""
    rows = await _wallet_rows(engine, player_id)
    if rows is None:
        return None
    by_currency = groupby(rows, key=lambda row: row.currency)
    return BalancesView(player_id, [balance_view(currencies, wallet_rows) for _, wallet_rows in by_currency])


async def list_transfers(
    engine: AsyncEngine, currencies: Currencies, player_id: str, page: Page
) -> TransferPage | None:
    """Return a page of a player's transfers, newest first; None if there is no such player.

    Raises CursorError.
    """
    list_key = ("player", player_id)
    before = read_cursor(list_key, page.cursor) if page.cursor is not None else None
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            if await _player(connection, player_id) is None:
                return None
            rows = (await connection.execute(_transfers_of(player_id, before, page.limit + 1))).all()
    return TransferPage(*cut_page(list_key, rows, page.limit, lambda row: transfer_line(currencies, row)))


async def show_transfer(
    engine: AsyncEngine, currencies: Currencies, integration: str, provider_tx_id: str
) -> TransferAnswer:
    """Return whether a provider's win is posted, and the transfer with its entries if it is."""
    identity = and_(transfers.c.integration == integration, transfers.c.provider_tx_id == provider_tx_id)
    found = await _transfer(engine, currencies, identity)
    return found or TransferAnswer(posted=False, integration=integration, provider_tx_id=provider_tx_id, transfer=None)


async def show_transfer_by_id(engine: AsyncEngine, currencies: Currencies, transfer_id: UUID) -> TransferAnswer | None:
    """Return the transfer with the ledger's own id `transfer_id`; None if there is none."""
    return await _transfer(engine, currencies, transfers.c.id == transfer_id)


async def show_round(
    engine: AsyncEngine, currencies: Currencies, integration: str, round_id: str, page: Page
) -> RoundView | None:
    """Return a page of a round's wins, oldest first; None if it has none. Raises CursorError.

    Wins that are posted while a client pages through the list come on its last pages. A win that took long to
    commit may be missing, if its id is below a cursor that the client had already; a new listing shows it.
    """
    list_key = ("round", integration, round_id)
    after = read_cursor(list_key, page.cursor) if page.cursor is not None else None
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            rows = (await connection.execute(_wins_of(integration, round_id, after, page.limit + 1))).all()
    if not rows and after is None:
        return None
    return RoundView(
        integration, round_id, *cut_page(list_key, rows, page.limit, lambda row: round_win(currencies, row))
    )


def _wins_of(integration: str, round_id: str, after: UUID | None, limit: int) -> Select[Any]:
    """Return a query that finds the ids of a round's wins by the round's index, and then reads those of the page.

    Without MATERIALIZED, PostgreSQL may read all transfers in the order of their ids until it has found enough
    of the round, if it overestimates the round's size; or all of the integration by the unique index, if the
    table was not analyzed yet.
    """
    of_round = select(transfers.c.id, transfers.c.integration).where(transfers.c.round_id == round_id)
    ids = of_round.cte("of_round").prefix_with("MATERIALIZED")
    page = select(ids.c.id).where(ids.c.integration == integration).order_by(ids.c.id).limit(limit)
    if after is not None:
        page = page.where(ids.c.id > after)
    return select(transfers).where(transfers.c.id.in_(page)).order_by(transfers.c.id)


def _transfers_of(player_id: str, before: UUID | None, limit: int) -> Select[Any]:
    newest = select(transfers).where(transfers.c.player_id == player_id).order_by(transfers.c.id.desc())
    if before is not None:
        newest = newest.where(transfers.c.id < before)
    return newest.limit(limit)


def _wallets_of(player_id: str) -> Select[Any]:
    of_player = select(wallets).where(wallets.c.player_id == player_id)
    return of_player.order_by(wallets.c.currency, wallets.c.kind.desc())


async def _player(connection: AsyncConnection, player_id: str) -> Row[Any] | None:
    return (await connection.execute(select(players).where(players.c.id == player_id))).one_or_none()


async def _wallet_rows(engine: AsyncEngine, player_id: str) -> Sequence[Row[Any]] | None:
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            if await _player(connection, player_id) is None:
                return None
            rows: Sequence[Row[Any]] = (await connection.execute(_wallets_of(player_id))).all()
            return rows


async def _transfer(engine: AsyncEngine, currencies: Currencies, has_id: ColumnElement[bool]) -> TransferAnswer | None:
    with outages_as_unavailable():
        async with confirmed_snapshot(engine) as connection:
            row = (await connection.execute(select(transfers).where(has_id))).one_or_none()
            if row is None:
                return None
            legs = await _entries(connection, currencies, row)
            found = transfer_view(currencies, row, legs, await _conflicts(connection, row))
    return TransferAnswer(posted=True, integration=row.integration, provider_tx_id=row.provider_tx_id, transfer=found)


async def _entries(connection: AsyncConnection, currencies: Currencies, transfer: Row[Any]) -> list[EntryView]:
    legs = await connection.execute(
        select(entries)
        .where(entries.c.transfer_id == transfer.id)
        .order_by(entries.c.account == SETTLEMENT, entries.c.account)
    )
    return [entry_view(currencies, row, transfer.currency) for row in legs]


async def _conflicts(connection: AsyncConnection, transfer: Row[Any]) -> list[ConflictView]:
    oldest = select(conflicts).where(conflicts.c.transfer_id == transfer.id).order_by(conflicts.c.first_seen_at)
    return [conflict_view(row) for row in await connection.execute(oldest.limit(CONFLICTS_MAX))]
