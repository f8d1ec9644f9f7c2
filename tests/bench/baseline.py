"""The direct baseline: one HTTP request is one transaction, without a queue, a batch or a cache.

The same front as the product's, with its signatures, parsing, replies, log and counters, in one process under
uvicorn, uvloop and httptools; the same tables, with the same guards. It reads whose each session is when it
starts. A win costs as few round trips as it can: begin, lock the wallets, insert the transfer, its entries,
update the wallet, commit. Repeats and what can't be paid take the ledger's own way; no measurement has any.

Serves by the product's settings: `python -m tests.bench.baseline`.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import uvloop
from sqlalchemy import and_, bindparam, exists, select, union_all, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from gateway.app import create_app
from gateway.ledger_client.client import LedgerClient
from gateway.ledger_client.concurrency import ConcurrencyLimit
from shared.errors import LedgerUnavailable
from shared.http import serve, serving
from shared.logging import set_up_logging
from shared.money import MINOR_MAX
from shared.operations import Credit, Wallet
from shared.outcome import Balance, Outcome, OutcomeCode, Receipt
from shared.queries import FindSession, Query
from shared.settings import Settings, load_settings
from shared.wire import Answer, Question
from worker.database.engine import create_engine
from worker.database.schema import SETTLEMENT, entries, sessions, transfers, wallets
from worker.ledger.transaction import Ledger

POOL_CONNECTIONS: Final = 16
SESSIONS_AT_ONCE: Final = 500


class NotPlainError(Exception):
    """The credit is a repeat, or can't be paid."""


class DirectLedger(LedgerClient):
    """A ledger client that posts each credit at once, in a transaction of its own."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Take the database's engine, whose tables are there. Nothing is ever refused: it has no bound."""
        super().__init__(ConcurrencyLimit(sys.maxsize))
        self._engine: Final = engine
        self._ledger: Final = Ledger(engine)
        self._holders: dict[Query, Balance] = {}

    async def __aenter__(self) -> Self:
        """Read whose each session is. Raises LedgerUnavailable."""
        async with self._engine.connect() as connection:
            names = (await connection.execute(select(sessions.c.integration, sessions.c.id))).all()
        asked = [FindSession(*name) for name in names]
        for first in range(0, len(asked), SESSIONS_AT_ONCE):
            self._holders |= await self._ledger.find(asked[first : first + SESSIONS_AT_ONCE])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self._engine.dispose()

    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        """Return the answers, whenever they come."""
        del deadline  # whoever measures it counts what came too late
        return [await self._answer(question) for question in questions]

    async def _answer(self, question: Question) -> Answer | LedgerUnavailable:
        self.limit.in_flight += 1
        try:
            if not isinstance(question, Credit):
                return self._holders.get(question) or (await self._ledger.find([question])).get(question)
            try:
                return await self._pay(question)
            except NotPlainError:
                return (await self._ledger.post([question])).outcomes[0]
        except LedgerUnavailable as error:
            return error
        finally:
            self.limit.in_flight -= 1

    async def _pay(self, credit: Credit) -> Outcome:
        """Post a credit in one transaction. Raises NotPlainError."""
        async with self._engine.begin() as connection:
            locked = (await connection.execute(_LOCK, {"of": credit.player_id, "in": credit.currency})).all()
            balances = {row.kind: row for row in locked}
            if not balances or credit.open_session_only or not credit.amount_minor:
                raise NotPlainError
            paid = balances[credit.wallet]
            after = {kind: row.balance_minor for kind, row in balances.items()}
            after[credit.wallet] += credit.amount_minor
            if sum(after.values()) > MINOR_MAX:
                raise NotPlainError
            transfer = _transfer(credit, after)
            if not (await connection.execute(_INSERT_TRANSFER, transfer)).rowcount:
                raise NotPlainError
            await _write_entries(connection, transfer["id"], credit, paid, after[credit.wallet])
        return Outcome(OutcomeCode.POSTED, _receipt(transfer))


async def _write_entries(
    connection: AsyncConnection, transfer_id: Any, credit: Credit, paid: Any, balance_minor: int
) -> None:
    version = paid.version + 1
    paid_leg = (transfer_id, credit.wallet, paid.id, credit.amount_minor, balance_minor, version)
    owed_leg = (transfer_id, SETTLEMENT, None, -credit.amount_minor, None, None)
    await connection.execute(_INSERT_ENTRIES, dict(zip(_LEGS, paid_leg + owed_leg, strict=True)))
    await connection.execute(_UPDATE_WALLET, {"of": paid.id, "balance": balance_minor, "number": version})


def _transfer(credit: Credit, after: dict[str, int]) -> dict[str, Any]:
    real = credit.wallet is Wallet.REAL
    return {
        **{name: getattr(credit, name) for name in _AS_IN_CREDIT},
        "id": uuid7(),
        "real_minor": credit.amount_minor if real else 0,
        "bonus_minor": 0 if real else credit.amount_minor,
        "real_balance_minor": after[Wallet.REAL],
        "bonus_balance_minor": after[Wallet.BONUS],
        "details": msgspec.json.encode(credit.details).decode(),
        "posted_at": datetime.now(UTC),
    }


def _receipt(transfer: dict[str, Any]) -> Receipt:
    names = ("currency", "real_minor", "bonus_minor", "real_balance_minor", "bonus_balance_minor")
    return Receipt(str(transfer["id"]), *(transfer[name] for name in names))


_LEG: Final = ("paid", "owed")
_LEGS: Final = [f"{leg}_{column.name}" for leg in _LEG for column in entries.columns]
_AS_IN_CREDIT: Final = [column.name for column in transfers.columns if hasattr(Credit, column.name)]
_ROUND_WAS_CLOSED: Final = exists().where(
    and_(
        transfers.c.round_id == bindparam("round_id"),
        transfers.c.player_id == bindparam("player_id"),
        transfers.c.integration == bindparam("integration"),
        transfers.c.round_closed,
    )
)
_LOCK: Final = (
    select(wallets.c.id, wallets.c.kind, wallets.c.balance_minor, wallets.c.version)
    .where(wallets.c.player_id == bindparam("of"), wallets.c.currency == bindparam("in"))
    .order_by(wallets.c.id)
    .with_for_update(key_share=True)
)
_INSERT_TRANSFER: Final = (
    insert(transfers)
    .values(
        {
            column.name: _ROUND_WAS_CLOSED if column.name == "after_round_closed" else bindparam(column.name)
            for column in transfers.columns
        }
    )
    .on_conflict_do_nothing(index_elements=["integration", "provider_tx_id"])
)
# Not `values()` with a list, which SQLAlchemy compiles anew each time; one statement, as the guards want it.
_INSERT_ENTRIES: Final = insert(entries).from_select(
    list(entries.columns.keys()),
    union_all(*(select(*(bindparam(f"{leg}_{c.name}", type_=c.type) for c in entries.columns)) for leg in _LEG)),
)
_UPDATE_WALLET: Final = (
    update(wallets)
    .where(wallets.c.id == bindparam("of"))
    .values(balance_minor=bindparam("balance"), version=bindparam("number"))
)


async def _serve(settings: Settings) -> None:
    pooled = settings.ledger.model_copy(update={"pool_connections_max": POOL_CONNECTIONS})
    async with DirectLedger(create_engine(pooled)) as ledger:
        app, own = create_app(settings, ledger), settings.gateway
        async with serving(app.operations, own.operations_host, own.operations_port):
            await serve(app, own.host, own.port)


if __name__ == "__main__":
    given = load_settings()
    set_up_logging(given.log)
    uvloop.run(_serve(given))
