"""The ledger's statements on SQLite, which takes its rows one by one."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from sqlalchemy import BindParameter, TextualSelect, bindparam, func, insert, select, text, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from worker.database.schema import CONFLICTS_MAX, conflicts, entries, transfers, wallets
from worker.ledger.planner import Plan
from worker.ledger.rows import ConflictRow, EntryRow, Id, TransferRow, settlement_entry
from worker.ledger.state import Identity, SignedIdentity
from worker.ledger.statements import TRANSFER, WALLET, Statements


class SqliteStatements(Statements):
    """SQLAlchemy's own, row by row. The transaction holds the whole file's lock already."""

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Read; BEGIN IMMEDIATE has locked."""
        return await self.read_wallets(connection, player_ids)

    async def read_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Read by player."""
        columns = [wallets.c[name] for name in WALLET]
        return (await connection.execute(select(*columns).where(wallets.c.player_id.in_(player_ids)))).all()

    async def find_transfers(self, connection: AsyncConnection, identities: Collection[Identity]) -> Sequence[Any]:
        """Look up by the unique index."""
        return (await connection.execute(_FIND_TRANSFERS_BY_ROW, {"keys": list(identities)})).all()

    async def find_signed(self, connection: AsyncConnection, signed: Collection[SignedIdentity]) -> Sequence[Any]:
        """Look up by the unique index of digests."""
        return (await connection.execute(_FIND_SIGNED_BY_ROW, {"keys": list(signed)})).all()

    async def read_copy(self, connection: AsyncConnection) -> str:  # noqa: ARG002
        """Return nothing: a file must not be replaced under a process."""
        return ""

    async def insert(self, connection: AsyncConnection, planned: Plan) -> str:
        """Insert and update row by row, under SQLite's write lock.

        The closed rounds are read first: row by row, a win would see those that its own batch closes, in the order
        of their ids and not in that of the batch.
        """
        closed = await _closed_rounds(connection, {_round(row) for row in planned.transfer_rows})
        await connection.execute(
            insert(transfers),
            [
                row._asdict()
                | {
                    "after_round_closed": row.after_round_closed or _round(row) in closed,
                    "posted_at": planned.posted_at,
                }
                for row in planned.transfer_rows
            ],
        )
        if planned.entry_rows:
            rows = [*planned.entry_rows, *_settlements(planned.entry_rows)]
            await connection.execute(insert(entries), [row._asdict() for row in rows])
            await connection.execute(
                _SET_WALLET,
                [
                    {"wallet_id": row.id, "balance_minor": row.balance_minor, "version": row.version}
                    for row in planned.wallet_rows
                ],
            )
        return await self.read_copy(connection)

    async def insert_conflicts(self, connection: AsyncConnection, rows: Sequence[ConflictRow]) -> None:
        """Insert, but for those that are there."""
        await connection.execute(
            _INSERT_CONFLICT,
            [{"kept_id": row.transfer_id, "offered_now": row.offered, "seen_at": row.first_seen_at} for row in rows],
        )


_PlayerRound = tuple[str, str | None, str]
"""Integration, round and player."""


def _round(row: TransferRow) -> _PlayerRound:
    return row.integration, row.round_id, row.player_id


async def _closed_rounds(connection: AsyncConnection, rounds: Collection[_PlayerRound]) -> set[Any]:
    named = [one for one in rounds if one[1] is not None]
    found = await connection.execute(_FIND_CLOSED_ROUNDS, {"keys": named}) if named else ()
    return {tuple(row) for row in found}


def _settlements(rows: Iterable[EntryRow]) -> list[EntryRow]:
    """Return the settlement account's entry of each transfer."""
    sums = Counter[Id]()
    for row in rows:
        sums[row.transfer_id] += row.amount_minor
    return [settlement_entry(transfer_id, -amount_minor) for transfer_id, amount_minor in sums.items()]


_KEPT = select(func.count()).where(conflicts.c.transfer_id == bindparam("kept_id")).scalar_subquery()
_INSERT_CONFLICT = (
    sqlite.insert(conflicts)
    .from_select(
        [column.name for column in conflicts.columns],
        select(
            bindparam("kept_id", type_=conflicts.c.transfer_id.type),
            bindparam("offered_now", type_=conflicts.c.offered.type),
            bindparam("seen_at", type_=conflicts.c.first_seen_at.type),
        ).where(_KEPT < CONFLICTS_MAX),
    )
    .on_conflict_do_nothing()
)
_SET_WALLET = update(wallets).where(wallets.c.id == bindparam("wallet_id"))
# Joined with a list of keys, because SQLite before 3.41 looks up `(a, b) IN (VALUES ...)` in no index.
_KEYS: Final[BindParameter[Sequence[Any]]] = bindparam("keys", expanding=True)


def _find_by_row(key: str) -> TextualSelect:
    names = ("integration", key, *TRANSFER)
    statement = text(
        f"SELECT {', '.join(f't.{name}' for name in names)} FROM :keys AS k CROSS JOIN transfers AS t"  # noqa: S608
        f" ON t.integration = k.column1 AND t.{key} = k.column2"
    )
    return statement.bindparams(_KEYS).columns(*(transfers.c[name] for name in names))


_FIND_TRANSFERS_BY_ROW = _find_by_row("provider_tx_id")
_FIND_SIGNED_BY_ROW = _find_by_row("signed_digest")
_FIND_CLOSED_ROUNDS = text(
    "SELECT DISTINCT t.integration, t.round_id, t.player_id FROM :keys AS k CROSS JOIN transfers AS t"
    " ON t.integration = k.column1 AND t.round_id = k.column2 AND t.player_id = k.column3"
    " WHERE t.round_closed"
).bindparams(_KEYS)
