"""The ledger's transactions: a batch of operations is posted in one, queries are answered from what is posted."""

import secrets
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from shared.errors import LedgerUnavailable
from shared.operations import AnyOperation
from shared.outcome import Balance
from shared.queries import Query
from worker.database.audit_log import LEDGER, PROCESS, Action, Actor, record
from worker.database.engine import autocommit, read_only
from worker.database.faults import is_transient, outages_as_unavailable
from worker.database.pooler import is_pooled_by_transaction
from worker.database.replication import (
    commit,
    confirm,
    find_weaknesses,
    note_losses,
    read_state,
    require_confirmed,
)
from worker.database.schema import CACHE_KEY_BYTES, ledger
from worker.database.transactions import transaction
from worker.ledger.epoch import Epoch
from worker.ledger.lookups import existing_players, find_all, open_sessions
from worker.ledger.planner import Plan, plan
from worker.ledger.state import LedgerState, SignedIdentity, Transfer
from worker.ledger.statements_postgres import PostgresStatements
from worker.ledger.statements_sqlite import SqliteStatements
from worker.ledger.wallet_cache import WalletCache, read_accounts

ATTEMPTS_MAX: Final = 4
"""The number of attempts at one batch when other workers interfere."""

EPOCH_SECONDS_MAX: Final = 1.0
"""The time for which a worker may still believe its cache after another process has bumped the epoch."""


class Ledger:
    """The ledger in one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take the database's engine. The loss of a connection that it already has is not noticed."""
        self._engine: Final = engine
        self._reading: Final = read_only(engine)
        on_postgresql = engine.dialect.name == "postgresql"
        self._statements: Final = PostgresStatements() if on_postgresql else SqliteStatements()
        self._single_statements: Final = autocommit(engine) if on_postgresql else None
        self._has_to_commit: Final = is_pooled_by_transaction(engine)
        self._accounts: Final = WalletCache()
        self._opened: Final = uuid7().hex
        self._is_replicated = on_postgresql
        """Whether replicas may have to confirm what is replied, as of the last read of the epoch."""
        self._copy: str | None = None
        """The copy of the books at that time."""
        self.connections_lost = 0
        """The number of connections that have ended: since then the books may be another copy."""
        note_losses(engine, self._note_loss)

    def _note_loss(self) -> None:
        self.connections_lost += 1

    @property
    def posts_side_by_side(self) -> bool:
        """Whether batches of different players can be posted concurrently."""
        return self._single_statements is not None

    def is_of_epoch(self, planned: Plan) -> bool:
        """Return whether a plan was written to the copy of the books whose epoch was last read.

        After a failover, or while there are two primaries, another connection may lead to another copy.
        """
        return planned.copy == self._copy

    async def post_new(self, operations: Sequence[AnyOperation]) -> Plan | None:
        """Post a batch optimistically: all operations are probably new, and the wallets as they are remembered.

        One statement checks both, and writes nothing unless both are true. Returns None if it wrote nothing, or
        if an outcome needs more than the wallets: posted transfers, players, sessions. Raises as `post` does.
        """
        if self._single_statements is None:
            return None
        keys = {(c.player_id, c.currency) for c in operations}
        accounts = self._accounts.pop(keys)
        try:
            with outages_as_unavailable():
                async with self._single_statements.connect() as connection:
                    if unknown := {player_id for player_id, _ in keys - accounts.keys()}:
                        accounts |= read_accounts(await self._statements.read_wallets(connection, unknown))
                    planned = plan(operations, LedgerState(accounts), datetime.now(UTC))
                    if planned.needs_reading:
                        return None
                    planned.copy = await self._statements.insert(connection, planned)
                    if self._has_to_commit:
                        await connection.commit()
                    require_confirmed(connection)
        except DBAPIError as error:
            if not is_transient(error):
                raise
            return None
        self._accounts.store(planned.accounts)
        return planned

    async def post(self, operations: Sequence[AnyOperation]) -> Plan:
        """Post a batch in one transaction; the plan that was carried out has an outcome for each operation.

        Raises LedgerUnavailable when the database can't be reached or other workers interfere too often: the
        batch may or may not be posted. Other exceptions mean that an operation of the batch can't be stored.
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                with outages_as_unavailable():
                    return await self._post_locked(operations)
            except DBAPIError as error:
                if not is_transient(error):
                    raise
        raise LedgerUnavailable(f"other workers got in the way {ATTEMPTS_MAX} times")

    async def _post_locked(self, operations: Sequence[AnyOperation]) -> Plan:
        """Begin, lock, read, insert, update, commit.

        Locking and reading are separate statements, so that each sees what was committed while the one before
        it waited: in one statement they would share a snapshot older than the locks. A batch of repeats has
        nothing to commit, and so waits for no disk.
        """
        async with self._engine.connect() as connection:  # which begins; unless told to commit, it rolls back
            locked = await self._statements.lock_wallets(connection, {c.player_id for c in operations})
            accounts = read_accounts(locked)
            found = await self._statements.find_transfers(connection, {c.identity for c in operations})
            known = LedgerState(
                accounts,
                transfers={(row[0], row[1]): _read_transfer(row[2:]) for row in found},
                signed=await self._signed_transfers(connection, operations),
                players=await existing_players(connection, operations, accounts),
                open_sessions=await open_sessions(connection, operations),
            )
            planned = plan(operations, known, datetime.now(UTC))
            planned.copy = await self._statements.read_copy(connection)
            if planned.writes:
                await self._write(connection, planned)
                await commit(connection)
            elif self._is_replicated:  # refusals and replays are replied, too
                await confirm(connection)
        self._accounts.store(planned.accounts)
        return planned

    async def _signed_transfers(
        self, connection: AsyncConnection, operations: Sequence[AnyOperation]
    ) -> dict[SignedIdentity, Transfer]:
        """Return the transfers of the batch's signed messages. Executes nothing unless there are some."""
        signed = {key for c in operations if (key := c.signed_identity) is not None}
        if not signed:
            return {}
        found = await self._statements.find_signed(connection, signed)
        return {(row[0], row[1]): _read_transfer(row[2:]) for row in found}

    async def _write(self, connection: AsyncConnection, planned: Plan) -> None:
        if planned.transfer_rows:
            await self._statements.insert(connection, planned)
        if planned.conflict_rows:
            await self._statements.insert_conflicts(connection, planned.conflict_rows)

    async def find(self, queries: Collection[Query]) -> dict[Query, Balance]:
        """Return the replies to queries; one without a reply is not in the result. Raises LedgerUnavailable."""
        with outages_as_unavailable():
            async with self._reading.connect() as connection:
                found = await find_all(connection, queries)
                if self._is_replicated:
                    await confirm(connection)
                return found

    async def epoch(self) -> str:
        """Return the name of the ledger's epoch, without its key. Raises LedgerUnavailable."""
        with outages_as_unavailable():
            async with self._reading.connect() as connection:
                return str((await connection.execute(select(ledger.c.epoch))).scalar_one())

    async def keyed_epoch(self) -> Epoch:
        """Return the ledger's epoch with the key of its cached values. Raises LedgerUnavailable.

        The database may be replaced by an older copy of itself, a promoted replica, a backup or a dump, which
        lacks transfers that were replied. So the epoch's name ends with the name of the copy. A SQLite file has
        none, and must not be replaced while a process has it open: each process has an epoch of its own.
        """
        with outages_as_unavailable():
            async with self._reading.connect() as connection:
                row = (await connection.execute(select(ledger.c.epoch, ledger.c.cache_key))).one()
                state = await read_state(connection)
        self._is_replicated, self._copy = state.is_replicated, state.copy
        return Epoch(f"{row.epoch}.{state.copy or self._opened}", row.cache_key)

    async def find_weaknesses(self) -> list[str]:
        """Return the database's settings by which a posted win may be lost. Raises LedgerUnavailable."""
        with outages_as_unavailable():
            async with self._reading.connect() as connection:
                return await find_weaknesses(connection)

    async def bump_epoch(self, *, by: Actor = PROCESS) -> str:
        """Begin a new epoch with a new key, and return its name. Raises LedgerUnavailable.

        The old key is in every backup, and so known to everyone who has one.
        """
        with outages_as_unavailable():
            async with transaction(self._engine) as connection:
                epoch, cache_key = uuid7(), secrets.token_bytes(CACHE_KEY_BYTES)
                await connection.execute(update(ledger).values(epoch=epoch, cache_key=cache_key))
                await record(connection, by, Action.EPOCH_BUMP, LEDGER, "begun", {"epoch": str(epoch)})
                return str(epoch)


def _read_transfer(row: Sequence[Any]) -> Transfer:
    return Transfer(str(row[0]), *row[1:])
