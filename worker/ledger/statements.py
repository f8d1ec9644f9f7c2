"""What the ledger asks of a database. For each kind of database there is a module that answers."""

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from worker.database.schema import transfers
from worker.ledger.planner import Identity, Plan, Row, SignedIdentity

WALLET: Final = ("id", "player_id", "currency", "kind", "balance_minor", "version")
TRANSFER: Final = (
    "id",
    "player_id",
    "currency",
    "amount_minor",
    "kind",
    "round_id",
    "game_id",
    "bet_id",
    "real_minor",
    "bonus_minor",
    "real_balance_minor",
    "bonus_balance_minor",
)
TRANSFER_ROW: Final = tuple(column for column in transfers.columns if column is not transfers.c.posted_at)
"""A row of a plan: without `posted_at`, which all of a batch share."""


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

    async def insert_conflicts(self, connection: AsyncConnection, rows: Sequence[Row]) -> None:
        """Insert conflicts, the first of each transfer alone; one that was seen before stays as it was."""
