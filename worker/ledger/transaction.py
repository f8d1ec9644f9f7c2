"""The ledger: credits become transfers in one transaction, and questions are answered from what is posted."""

import secrets
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Table, and_, select, tuple_, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from shared.errors import LedgerUnavailable
from shared.operations import Credit, Wallet
from shared.outcome import Holder
from shared.wire import FindPlayer, FindSession, Lookup
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
from worker.database.schema import CACHE_KEY_BYTES, ledger, players, sessions, wallets
from worker.database.transactions import transaction
from worker.ledger.epoch import Epoch
from worker.ledger.planner import AccountKey, LedgerState, Plan, PlayerWallets, SignedIdentity, Transfer, plan
from worker.ledger.statements_postgres import PostgresStatements
from worker.ledger.statements_sqlite import SqliteStatements
from worker.ledger.wallet_cache import WalletCache, read_accounts

ATTEMPTS_MAX: Final = 4
"""How often one batch is tried when others get in its way."""

EPOCH_SECONDS_MAX: Final = 1.0
"""How long after an epoch was bumped a worker may still believe what its cache knew before."""


class Ledger:
    """The books, in one database."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take the database's engine. Of connections that it has already, no loss is noticed."""
        self._engine: Final = engine
        self._reading: Final = read_only(engine)
        on_postgresql = engine.dialect.name == "postgresql"
        self._statements: Final = PostgresStatements() if on_postgresql else SqliteStatements()
        self._single_statements: Final = autocommit(engine) if on_postgresql else None
        self._has_to_commit: Final = is_pooled_by_transaction(engine)
        self._accounts: Final = WalletCache()
        self._opened: Final = uuid7().hex
        self._is_replicated = on_postgresql
        """Whether replicas may have to hold what is told, as of when the epoch was last asked for."""
        self._copy: str | None = None
        """Which copy of the books there was then."""
        self.connections_lost = 0
        """How many connections have ended, by whichever side: the books may be another copy since."""
        note_losses(engine, self._note_loss)

    def _note_loss(self) -> None:
        self.connections_lost += 1

    @property
    def posts_side_by_side(self) -> bool:
        """Whether two batches of different players hold each other up nowhere."""
        return self._single_statements is not None

    def is_of_epoch(self, planned: Plan) -> bool:
        """Tell whether a plan was carried out on the books whose epoch was last asked for.

        After a failover, or while there are two primaries, other connections may lead to other books.
        """
        return planned.copy == self._copy

    async def post_new(self, credits_: Sequence[Credit]) -> Plan | None:
        """Post in one statement what is probably new, to wallets that probably are as remembered.

        The statement is refused, and writes nothing, unless both are so. Returns None if it was, or if there
        is more to be asked: of sessions, or why a credit is rejected. Raises as `post` does.
        """
        if self._single_statements is None:
            return None
        keys = {(c.player_id, c.currency) for c in credits_}
        accounts = self._accounts.pop(keys)
        try:
            with outages_as_unavailable():
                async with self._single_statements.connect() as connection:
                    if unknown := {player_id for player_id, _ in keys - accounts.keys()}:
                        accounts |= read_accounts(await self._statements.read_wallets(connection, unknown))
                    planned = plan(credits_, LedgerState(accounts), datetime.now(UTC))
                    if any(outcome.receipt is None for outcome in planned.outcomes):
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

    async def post(self, credits_: Sequence[Credit]) -> Plan:
        """Post a batch in one transaction; the plan that was carried out has an outcome for each credit.

        Raises LedgerUnavailable when the database can't be reached or others get in the way too often: the
        batch may or may not be posted. Other exceptions mean that a credit of the batch can't be stored.
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                with outages_as_unavailable():
                    return await self._post_locked(credits_)
            except DBAPIError as error:
                if not is_transient(error):
                    raise
        raise LedgerUnavailable(f"other workers got in the way {ATTEMPTS_MAX} times")

    async def _post_locked(self, credits_: Sequence[Credit]) -> Plan:
        """Begin, lock, read, insert, update, commit.

        Locking and reading are statements of their own: each sees what was committed while the one before
        it waited. In one statement they would share a snapshot older than the locks. A batch of repeats has
        nothing to commit, and so waits for no disk.
        """
        async with self._engine.connect() as connection:  # which begins; unless told to commit, it rolls back
            locked = await self._statements.lock_wallets(connection, {c.player_id for c in credits_})
            accounts = read_accounts(locked)
            found = await self._statements.find_transfers(connection, {c.identity for c in credits_})
            known = LedgerState(
                accounts,
                transfers={(row[0], row[1]): _read_transfer(row[2:]) for row in found},
                signed=await self._signed_transfers(connection, credits_),
                players=await _existing_players(connection, credits_, accounts),
                open_sessions=await _open_sessions(connection, credits_),
            )
            planned = plan(credits_, known, datetime.now(UTC))
            planned.copy = await self._statements.read_copy(connection)
            if planned.writes:
                await self._write(connection, planned)
                await commit(connection)
            elif self._is_replicated:  # what is refused is told, too
                await confirm(connection)
        self._accounts.store(planned.accounts)
        return planned

    async def _signed_transfers(
        self, connection: AsyncConnection, credits_: Sequence[Credit]
    ) -> dict[SignedIdentity, Transfer]:
        """Return what the batch's signed messages have paid; asks only when a credit carries a digest."""
        signed = {key for c in credits_ if (key := c.signed_identity) is not None}
        if not signed:
            return {}
        found = await self._statements.find_signed(connection, signed)
        return {(row[0], row[1]): _read_transfer(row[2:]) for row in found}

    async def _write(self, connection: AsyncConnection, planned: Plan) -> None:
        if planned.transfer_rows:
            await self._statements.insert(connection, planned)
        if planned.conflict_rows:
            await self._statements.insert_conflicts(connection, planned.conflict_rows)

    async def find(self, lookups: Collection[Lookup]) -> dict[Lookup, Holder]:
        """Answer lookups; one that has no answer is not in the result. Raises LedgerUnavailable."""
        with outages_as_unavailable():
            async with self._reading.connect() as connection:
                found = {
                    **await _find_players(connection, [q for q in lookups if isinstance(q, FindPlayer)]),
                    **await _find_sessions(connection, [q for q in lookups if isinstance(q, FindSession)]),
                }
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

        The database may be replaced by an older copy of itself, which lacks what was told: by a promoted
        replica, a backup, a dump. So the epoch's name ends with that of the copy. A SQLite file has none, and
        must not be replaced under a process that has it open: each process has an epoch of its own.
        """
        with outages_as_unavailable():
            async with self._reading.connect() as connection:
                row = (await connection.execute(select(ledger.c.epoch, ledger.c.cache_key))).one()
                state = await read_state(connection)
        self._is_replicated, self._copy = state.is_replicated, state.copy
        return Epoch(f"{row.epoch}.{state.copy or self._opened}", row.cache_key)

    async def find_weaknesses(self) -> list[str]:
        """Return by which settings of the database wins may be lost that were told as paid.

        Raises LedgerUnavailable.
        """
        with outages_as_unavailable():
            async with self._reading.connect() as connection:
                return await find_weaknesses(connection)

    async def bump_epoch(self, *, by: Actor = PROCESS) -> str:
        """Begin a new epoch with a new key, and return its name.

        The old key is in every backup, and known to whoever has one. Raises LedgerUnavailable.
        """
        with outages_as_unavailable():
            async with transaction(self._engine) as connection:
                epoch, cache_key = uuid7(), secrets.token_bytes(CACHE_KEY_BYTES)
                await connection.execute(update(ledger).values(epoch=epoch, cache_key=cache_key))
                await record(connection, by, Action.EPOCH_BUMP, LEDGER, "begun", {"epoch": str(epoch)})
                return str(epoch)


def _read_transfer(row: Sequence[Any]) -> Transfer:
    return Transfer(str(row[0]), *row[1:])


async def _existing_players(
    connection: AsyncConnection, credits_: Sequence[Credit], accounts: dict[AccountKey, PlayerWallets]
) -> set[str]:
    """Return the players that exist; asks only when a credit found no wallet."""
    without = {c.player_id for c in credits_ if (c.player_id, c.currency) not in accounts}
    if not without:
        return set()
    return set((await connection.execute(select(players.c.id).where(players.c.id.in_(without)))).scalars())


async def _open_sessions(connection: AsyncConnection, credits_: Sequence[Credit]) -> set[tuple[str, str]]:
    """Return the open sessions; asks only when a credit needs its session open."""
    needed = {(c.integration, c.session_id or "") for c in credits_ if c.open_session_only}
    if not needed:
        return set()
    key = tuple_(sessions.c.integration, sessions.c.id)
    statement = select(sessions.c.integration, sessions.c.id).where(key.in_(needed), sessions.c.closed_at.is_(None))
    return {(row.integration, row.id) for row in await connection.execute(statement)}


async def _find_players(connection: AsyncConnection, lookups: Sequence[FindPlayer]) -> dict[Lookup, Holder]:
    if not lookups:
        return {}
    statement = (
        select(players.c.id, players.c.currency, wallets.c.kind, wallets.c.balance_minor)
        .join_from(players, wallets, _own(players, players.c.id))
        .where(players.c.id.in_({q.player_id for q in lookups}))
    )
    holders = _holders((FindPlayer(row[0]), row[0], *row[1:]) for row in await connection.execute(statement))
    found = ((lookup, holders.get(FindPlayer(lookup.player_id))) for lookup in lookups)
    return {lookup: holder for lookup, holder in found if holder is not None}


async def _find_sessions(connection: AsyncConnection, lookups: Sequence[FindSession]) -> dict[Lookup, Holder]:
    if not lookups:
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
        .where(key.in_({(q.integration, q.session_id) for q in lookups}))
    )
    return _holders((FindSession(row[0], row[1]), *row[2:]) for row in await connection.execute(statement))


def _own(holder: Table, player_id: Any) -> Any:
    """Join a player, or a session, with the wallets in its currency."""
    return and_(wallets.c.player_id == player_id, wallets.c.currency == holder.c.currency)


def _holders(rows: Iterable[tuple[Any, ...]]) -> dict[Lookup, Holder]:
    """Read (lookup, player_id, currency, kind, balance_minor), one row for each of a holder's wallets."""
    balances: dict[Lookup, tuple[str, str, dict[str, int]]] = {}
    for lookup, player_id, currency, kind, balance_minor in rows:
        balances.setdefault(lookup, (player_id, currency, {}))[2][kind] = balance_minor
    return {
        lookup: Holder(player_id, currency, by_kind[Wallet.REAL], by_kind[Wallet.BONUS])
        for lookup, (player_id, currency, by_kind) in balances.items()
    }
