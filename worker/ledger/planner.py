"""The arithmetic of posting: which credits become transfers, and what they leave in the wallets. No I/O.

`plan` takes a batch and what the ledger holds about it, in the batch's order, and says what to write and
what to answer. The transaction around it is in `worker.ledger.transaction`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from uuid_utils import uuid7

from shared.ids import ID_CHARACTERS_MAX
from shared.money import MINOR_MAX
from shared.operations import FINGERPRINT, Credit, Wallet
from shared.outcome import Outcome, OutcomeCode, Receipt
from worker.database.schema import SETTLEMENT

Identity = tuple[str, str]
SignedIdentity = tuple[str, bytes]
"""Integration and digest of a signed message."""

Row = tuple[Any, ...]

OFFERED_BYTES_MAX: Final = 2_500
"""Of what a conflict offered, as it is kept: PostgreSQL's index holds 2,704 with the transfer's id."""


class Transfer(msgspec.Struct, frozen=True, array_like=True):
    """A posted credit: its fingerprint and its receipt. The ledger's row, and what the cache remembers."""

    id: str
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

    @property
    def receipt(self) -> Receipt:
        """What every reply about this transfer says."""
        return Receipt(
            self.id,
            self.currency,
            self.real_minor,
            self.bonus_minor,
            self.real_balance_minor,
            self.bonus_balance_minor,
        )


class WalletState:
    """A wallet while a batch is planned: its row as it was found, and as the batch will leave it."""

    __slots__ = ("balance_minor", "found_minor", "found_version", "version", "wallet_id")

    def __init__(self, wallet_id: UUID, balance_minor: int, version: int) -> None:
        """Take the row as it was found."""
        self.wallet_id: Final = wallet_id
        self.found_minor = self.balance_minor = balance_minor
        self.found_version = self.version = version

    def add(self, amount_minor: int) -> None:
        """Credit the wallet."""
        self.balance_minor += amount_minor
        self.version += 1

    def written(self) -> None:
        """Take the row as the batch has left it for the one that the next will find."""
        self.found_minor, self.found_version = self.balance_minor, self.version

    @property
    def row(self) -> Row:
        """What to write, and what must be there for it to be right."""
        return self.wallet_id, self.balance_minor, self.version, self.found_minor, self.found_version


PlayerWallets = Mapping[Wallet, WalletState]
"""A player's two wallets in one currency."""

AccountKey = tuple[str, str]
"""Player and currency."""


@dataclass(frozen=True, slots=True)
class LedgerState:
    """What the ledger holds about a batch."""

    accounts: Mapping[AccountKey, PlayerWallets]

    transfers: Mapping[Identity, Transfer] = field(default_factory=dict)
    """Those of the batch's credits that are posted already."""

    signed: Mapping[SignedIdentity, Transfer] = field(default_factory=dict)
    """The transfers that the batch's signed messages have paid already, under whatever id."""

    players: Collection[str] = frozenset()
    """Those of the batch's players that exist, whether or not they have a wallet in the currency."""

    open_sessions: Collection[tuple[str, str]] = frozenset()
    """By integration and session; only of credits that need theirs open."""


@dataclass(slots=True)
class Plan:
    """What to write, as rows in the order of the tables' columns, and what to answer."""

    posted_at: datetime
    outcomes: list[Outcome] = field(default_factory=list)
    transfers: dict[Identity, Transfer] = field(default_factory=dict)
    """Every transfer that the batch's outcomes speak of, posted by it or before it."""

    signed: dict[SignedIdentity, Transfer] = field(default_factory=dict)
    """Every transfer that a signed message of the batch has paid, by it or before it."""

    transfer_rows: list[Row] = field(default_factory=list)
    """Without `posted_at`, which they share."""

    leg_rows: list[Row] = field(default_factory=list)
    """The entries on wallets: to each belongs its counterpart, see `settlement_leg`."""

    wallet_rows: list[Row] = field(default_factory=list)
    """(id, balance_minor, version, found_minor, found_version) of all wallets of the accounts."""

    accounts: dict[AccountKey, PlayerWallets] = field(default_factory=dict)
    """Those that the transfers are on."""

    conflict_rows: list[Row] = field(default_factory=list)
    copy: str = ""
    """Which copy of the books it was carried out on, see `worker.database.replication.State`."""

    closed_rounds: set[tuple[str, str | None, str]] = field(default_factory=set)
    """By integration, round and player: those that this batch closes."""

    @property
    def writes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.transfer_rows or self.conflict_rows)


def replay_or_conflict(credit: Credit, transfer: Transfer) -> Outcome:
    """Answer a credit whose id is posted already: a replay if all that matters is the same."""
    differing = _differing(credit, transfer)
    if differing:
        return Outcome(OutcomeCode.CONFLICT, mismatched_fields=differing)
    return Outcome(OutcomeCode.REPLAYED, transfer.receipt)


def signed_replay_or_conflict(credit: Credit, transfer: Transfer) -> Outcome:
    """Answer a credit of a new id whose signed message has paid `transfer`: one message pays once."""
    return Outcome(OutcomeCode.CONFLICT, mismatched_fields=("provider_tx_id", *_differing(credit, transfer)))


def _differing(credit: Credit, transfer: Transfer) -> tuple[str, ...]:
    return tuple(name for name in FINGERPRINT if getattr(credit, name) != getattr(transfer, name))


def settlement_leg(leg: Row) -> Row:
    """Return the counterpart of an entry on a wallet: what the integration owes for it."""
    return leg[0], SETTLEMENT, None, -leg[3], None, None


def plan(credits_: Sequence[Credit], known: LedgerState, posted_at: datetime) -> Plan:
    """Plan a batch. A credit sees those before it; one that can't be posted takes nothing from the others."""
    made = Plan(posted_at, transfers=dict(known.transfers), signed=dict(known.signed))
    for credit in credits_:
        made.outcomes.append(_plan_one(credit, known, made))
    # Sorted, so that two workers with the same ids wait for each other in one direction only.
    made.transfer_rows.sort(key=lambda row: row[1:3])
    made.wallet_rows = [wallet.row for account in made.accounts.values() for wallet in account.values()]
    return made


def _plan_one(credit: Credit, known: LedgerState, made: Plan) -> Outcome:
    if (transfer := made.transfers.get(credit.identity)) is not None:
        return _refuse_other_content(credit, transfer, replay_or_conflict(credit, transfer), made)
    signed = credit.signed_identity
    if signed is not None and (transfer := made.signed.get(signed)) is not None:
        return _refuse_other_content(credit, transfer, signed_replay_or_conflict(credit, transfer), made)
    account = known.accounts.get((credit.player_id, credit.currency))
    if (reason := _rejection(credit, known, account)) is not None:
        return Outcome(reason)
    assert account is not None  # noqa: S101  (what `_rejection` has told)
    transfer = _post(credit, account, made)
    made.transfers[credit.identity] = transfer
    if signed is not None:
        made.signed[signed] = transfer
    return Outcome(OutcomeCode.POSTED, transfer.receipt)


def _refuse_other_content(credit: Credit, transfer: Transfer, outcome: Outcome, made: Plan) -> Outcome:
    """Return the outcome, and plan to keep what was offered if it is a conflict."""
    if outcome.mismatched_fields:
        made.conflict_rows.append((UUID(transfer.id), _offered(credit, outcome.mismatched_fields), made.posted_at))
    return outcome


def _offered(credit: Credit, differing: Iterable[str]) -> str:
    """Return the fields that differ as they are kept: long texts cut, if all of it is too long."""
    fields = {name: getattr(credit, name) for name in differing}
    offered = _json.encode(fields)
    if len(offered) > OFFERED_BYTES_MAX:
        cut = {k: v[:ID_CHARACTERS_MAX] if isinstance(v, str) else v for k, v in fields.items()}
        offered = _json.encode(cut)
    return offered.decode()


def _rejection(credit: Credit, known: LedgerState, account: PlayerWallets | None) -> OutcomeCode | None:
    if account is None:
        return OutcomeCode.WRONG_CURRENCY if credit.player_id in known.players else OutcomeCode.UNKNOWN_PLAYER
    if credit.open_session_only and (credit.integration, credit.session_id) not in known.open_sessions:
        return OutcomeCode.SESSION_CLOSED
    held_minor = account[Wallet.REAL].balance_minor + account[Wallet.BONUS].balance_minor
    if held_minor + credit.amount_minor > MINOR_MAX:
        return OutcomeCode.BALANCE_LIMIT
    return None


def _post(credit: Credit, account: PlayerWallets, made: Plan) -> Transfer:
    transfer_id = uuid7()
    made.accounts[credit.player_id, credit.currency] = account
    amount_minor, wallet = credit.amount_minor, account[credit.wallet]
    if amount_minor:  # a zero credit, a lost bet, is a transfer without entries
        wallet.add(amount_minor)
        made.leg_rows.append(
            (
                transfer_id,
                credit.wallet,
                wallet.wallet_id,
                amount_minor,
                wallet.balance_minor,
                wallet.version,
            )
        )
    transfer = Transfer(
        id=str(transfer_id),
        player_id=credit.player_id,
        currency=credit.currency,
        amount_minor=amount_minor,
        kind=credit.kind,
        round_id=credit.round_id,
        game_id=credit.game_id,
        bet_id=credit.bet_id,
        real_minor=amount_minor if credit.wallet is Wallet.REAL else 0,
        bonus_minor=amount_minor if credit.wallet is Wallet.BONUS else 0,
        real_balance_minor=account[Wallet.REAL].balance_minor,
        bonus_balance_minor=account[Wallet.BONUS].balance_minor,
    )
    player_round = (credit.integration, credit.round_id, credit.player_id)
    made.transfer_rows.append(
        (
            transfer_id,
            *credit.identity,
            *msgspec.structs.astuple(transfer)[1:],
            credit.round_closed,
            credit.session_id,
            _json.encode(credit.details).decode(),
            credit.signed_digest,
            player_round in made.closed_rounds,
        )
    )
    if credit.round_closed and credit.round_id is not None:
        made.closed_rounds.add(player_round)
    return transfer


_json: Final = msgspec.json.Encoder()
