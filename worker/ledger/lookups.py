"""Reads of players and sessions: for the operations of a batch, and for the queries of gateways."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Table, and_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.operations import AnyOperation, Wallet
from shared.outcome import Balance
from shared.queries import FindPlayer, FindSession, Query
from worker.database.schema import players, sessions, wallets
from worker.ledger.state import AccountKey, PlayerWallets


async def existing_players(
    connection: AsyncConnection, operations: Sequence[AnyOperation], accounts: Mapping[AccountKey, PlayerWallets]
) -> set[str]:
    """Return the players that exist. Executes nothing unless an operation found no wallet."""
    without = {o.player_id for o in operations if (o.player_id, o.currency) not in accounts}
    if not without:
        return set()
    return set((await connection.execute(select(players.c.id).where(players.c.id.in_(without)))).scalars())


async def open_sessions(connection: AsyncConnection, operations: Sequence[AnyOperation]) -> set[tuple[str, str]]:
    """Return the open sessions. Executes nothing unless an operation needs its session open."""
    needed = {(o.integration, o.session_id or "") for o in operations if o.open_session_only}
    if not needed:
        return set()
    key = tuple_(sessions.c.integration, sessions.c.id)
    statement = select(sessions.c.integration, sessions.c.id).where(key.in_(needed), sessions.c.closed_at.is_(None))
    return {(row.integration, row.id) for row in await connection.execute(statement)}


async def find_all(connection: AsyncConnection, queries: Iterable[Query]) -> dict[Query, Balance]:
    """Return the replies to queries; a query without a reply is not in the result."""
    by_player = [query for query in queries if isinstance(query, FindPlayer)]
    by_session = [query for query in queries if isinstance(query, FindSession)]
    return {**await _find_players(connection, by_player), **await _find_sessions(connection, by_session)}


async def _find_players(connection: AsyncConnection, queries: Sequence[FindPlayer]) -> dict[Query, Balance]:
    if not queries:
        return {}
    statement = (
        select(players.c.id, players.c.currency, wallets.c.kind, wallets.c.balance_minor)
        .join_from(players, wallets, _own(players, players.c.id))
        .where(players.c.id.in_({query.player_id for query in queries}))
    )
    found = _read_balances((FindPlayer(row[0]), row[0], *row[1:]) for row in await connection.execute(statement))
    replies = ((query, found.get(FindPlayer(query.player_id))) for query in queries)
    return {query: reply for query, reply in replies if reply is not None}


async def _find_sessions(connection: AsyncConnection, queries: Sequence[FindSession]) -> dict[Query, Balance]:
    if not queries:
        return {}
    key = tuple_(sessions.c.integration, sessions.c.id)
    statement = (
        select(
            sessions.c.integration,
            sessions.c.id,
            sessions.c.player_id,
            sessions.c.currency,
            wallets.c.kind,
            wallets.c.balance_minor,
        )
        .join_from(sessions, wallets, _own(sessions, sessions.c.player_id))
        .where(key.in_({(query.integration, query.session_id) for query in queries}))
    )
    return _read_balances((FindSession(row[0], row[1]), *row[2:]) for row in await connection.execute(statement))


def _own(owner: Table, player_id: Any) -> Any:
    """Join a player, or a session, with the wallets in its currency."""
    return and_(wallets.c.player_id == player_id, wallets.c.currency == owner.c.currency)


def _read_balances(rows: Iterable[tuple[Any, ...]]) -> dict[Query, Balance]:
    """Read rows of (query, player_id, currency, kind, balance_minor), one for each wallet of a player."""
    balances: dict[Query, tuple[str, str, dict[str, int]]] = {}
    for query, player_id, currency, kind, balance_minor in rows:
        balances.setdefault(query, (player_id, currency, {}))[2][kind] = balance_minor
    return {
        query: Balance(player_id, currency, by_kind[Wallet.REAL], by_kind[Wallet.BONUS])
        for query, (player_id, currency, by_kind) in balances.items()
    }
