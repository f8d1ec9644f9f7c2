"""The rows that a plan writes. Their field names are the tables' columns, in the order of the statements' arrays."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import uuid_utils

from worker.database.schema import SETTLEMENT

Id = UUID | uuid_utils.UUID


class TransferRow(NamedTuple):
    """A row of `transfers`, without `posted_at`, which all rows of a batch share."""

    id: Id
    integration: str
    provider_tx_id: str
    player_id: str
    currency: str
    amount_minor: int
    kind: str
    round_id: str | None
    game_id: str | None
    bet_id: str | None
    real_minor: int
    bonus_minor: int
    real_balance_minor: int
    bonus_balance_minor: int
    round_closed: bool
    session_id: str | None
    details: str
    signed_digest: bytes | None
    after_round_closed: bool
    """As far as the batch knows; the statement looks at the rounds that were closed before."""


class EntryRow(NamedTuple):
    """A row of `entries`: one leg of a transfer."""

    transfer_id: Id
    account: str
    wallet_id: UUID | None
    amount_minor: int
    balance_minor: int | None
    wallet_version: int | None


class WalletRow(NamedTuple):
    """A wallet as it is to be written, and as it must be found for that to be right."""

    id: UUID
    balance_minor: int
    version: int
    found_minor: int
    found_version: int


class ConflictRow(NamedTuple):
    """A row of `conflicts`."""

    transfer_id: UUID
    offered: str
    first_seen_at: datetime


def settlement_entry(transfer_id: Id, amount_minor: int) -> EntryRow:
    """Return the entry of the integration's settlement account, which balances those on wallets."""
    return EntryRow(transfer_id, SETTLEMENT, None, amount_minor, None, None)
