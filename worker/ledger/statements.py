"""The statements that the ledger needs of a database. Each kind of database has a module that implements them."""

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.database.schema import conflicts, entries, transfers
from worker.ledger.planner import Plan
from worker.ledger.rows import ConflictRow, EntryRow, TransferRow
from worker.ledger.state import Identity, SignedIdentity, Transfer

WALLET: Final = ("id", "player_id", "currency", "kind", "balance_minor", "version")
"""The columns of a wallet as it is read."""

TRANSFER: Final = Transfer.__struct_fields__
"""The columns of a transfer as it is read."""

TRANSFER_COLUMNS: Final = tuple(transfers.c[name] for name in TransferRow._fields)
ENTRY_COLUMNS: Final = tuple(entries.c[name] for name in EntryRow._fields)
CONFLICT_COLUMNS: Final = tuple(conflicts.c[name] for name in ConflictRow._fields)


class Statements(Protocol):
    """The statements that a `Ledger` executes to post a batch, in the order in which it executes them."""

    async def read_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Return the players' wallets, which may change at any moment."""

    async def lock_wallets(self, connection: AsyncConnection, player_ids: Collection[str]) -> Sequence[Any]:
        """Lock the players' wallets, in the order of their ids, and return them."""

    async def find_transfers(self, connection: AsyncConnection, identities: Collection[Identity]) -> Sequence[Any]:
        """Return those of the transfers that are posted: integration, provider_tx_id, then the rest."""

    async def find_signed(self, connection: AsyncConnection, signed: Collection[SignedIdentity]) -> Sequence[Any]:
        """Return the transfers that these signed messages have paid: integration, digest, then the rest."""

    async def read_copy(self, connection: AsyncConnection) -> str:
        """Return which copy of the books the connection reads, as `replication.State` has it."""

    async def insert(self, connection: AsyncConnection, planned: Plan) -> str:
        """Insert transfers, each flagged if its player's round was closed, and entries; set the wallets.

        Returns what `read_copy` does.

        Raises a transient DBAPIError, and writes nothing, when a wallet is not as it was found, or a
        transfer is not new: others came first.
        """

    async def insert_conflicts(self, connection: AsyncConnection, rows: Sequence[ConflictRow]) -> None:
        """Insert conflicts, the first of each transfer alone; one that was seen before stays as it was."""
