"""The tables of the ledger. `migrations/` creates them, and a test compares the two.

A transfer is a posted credit. Its entries are its double-entry legs and sum to zero: they credit the player's
wallets and debit the integration's settlement account. The settlement account has no row with its balance,
because every credit would have to lock it: its balance is the sum of its entries.

On PostgreSQL triggers check the references of transfers and entries, for all rows of a statement at once.
Foreign keys would check row by row, and lock the player's row, which is a write, for every credit.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    false,
    text,
)

from shared.currency_code import CURRENCY_CHARACTERS_MAX, CURRENCY_CHARACTERS_MIN
from shared.money import MINOR_MAX

SETTLEMENT: Final = "SETTLEMENT"
"""The account from which an integration's wins are paid; the other legs are on REAL and BONUS wallets."""

CONFLICTS_MAX: Final = 100
"""The most conflicts that are stored of a transfer, the first ones: unsigned fields can be varied without end."""

CURRENCY_CHECK: Final = (
    f"length(currency) BETWEEN {CURRENCY_CHARACTERS_MIN} AND {CURRENCY_CHARACTERS_MAX} AND currency = upper(currency)"
)

CACHE_KEY_BYTES: Final = 32

REVISION: Final = "0012"
"""The last migration of `migrations/versions`, after which a database has these tables."""

_TEXT: Final = Text(collation="C").with_variant(Text(), "sqlite")
"""Text that is compared byte by byte: a language's sort order may change with an update of the operating system,
and an index in the old order would no longer find all its rows."""

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single_row"), primary_key=True, autoincrement=False),
    Column("epoch", Uuid, nullable=False, comment="names this state of the books in cache keys"),
    Column(
        "cache_key",
        LargeBinary,
        CheckConstraint(f"length(cache_key) = {CACHE_KEY_BYTES}", name="cache_key"),
        nullable=False,
        comment="32 random bytes; whoever can read them can forge cached outcomes",
    ),
    Column("cell", _TEXT, comment="the cell that these books are; null where there are no cells"),
    info={"description": "one row: which books these are"},
)

served_integrations = Table(
    "served_integrations",
    metadata,
    Column("integration", _TEXT, primary_key=True),
    Column("since", DateTime(timezone=True), nullable=False),
    Column("cell", _TEXT, comment="the other cell that serves it; null where these books do"),
    comment="the integrations whose wins are posted here, and in no other cell",
)

players = Table(
    "players",
    metadata,
    Column("id", _TEXT, primary_key=True, comment="the operator's own id of the player"),
    Column("currency", _TEXT, nullable=False, comment="the player's own; they may hold wallets in others"),
    Column("created_at", DateTime(timezone=True), nullable=False),
    CheckConstraint(CURRENCY_CHECK, name="currency"),
    info={"description": "the players that may hold money"},
)

sessions = Table(
    "sessions",
    metadata,
    Column("integration", _TEXT, primary_key=True),
    Column("id", _TEXT, primary_key=True, comment="the provider's wallet session"),
    Column("player_id", _TEXT, ForeignKey("players.id"), nullable=False),
    Column("currency", _TEXT, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),
    CheckConstraint(CURRENCY_CHECK, name="currency"),
    info={"description": "providers' wallet sessions; whose one is never changes, and a closed one stays closed"},
)

wallets = Table(
    "wallets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("player_id", _TEXT, ForeignKey("players.id"), nullable=False),
    Column("currency", _TEXT, nullable=False),
    Column("kind", _TEXT, CheckConstraint("kind IN ('REAL', 'BONUS')", name="kind"), nullable=False),
    Column("balance_minor", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False, comment="how many entries the wallet has"),
    UniqueConstraint("player_id", "currency", "kind"),
    CheckConstraint(f"balance_minor BETWEEN 0 AND {MINOR_MAX}", name="balance"),
    CheckConstraint(CURRENCY_CHECK, name="currency"),
    info={"description": "the money of a player in one currency, of one kind"},
)

transfers = Table(
    "transfers",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: new rows are neighbours in the index"),
    Column("integration", _TEXT, nullable=False),
    Column("provider_tx_id", _TEXT, nullable=False),
    Column("player_id", _TEXT, nullable=False),
    Column("currency", _TEXT, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("kind", _TEXT, nullable=False),
    Column("round_id", _TEXT),
    Column("game_id", _TEXT),
    Column("bet_id", _TEXT),
    Column("real_minor", BigInteger, nullable=False),
    Column("bonus_minor", BigInteger, nullable=False),
    Column("real_balance_minor", BigInteger, nullable=False, comment="right after this transfer"),
    Column("bonus_balance_minor", BigInteger, nullable=False, comment="right after this transfer"),
    Column("round_closed", Boolean, nullable=False),
    Column("session_id", _TEXT),
    Column("details", _TEXT, nullable=False, comment="JSON: what else the provider said"),
    Column("posted_at", DateTime(timezone=True), nullable=False),
    Column("signed_digest", LargeBinary, comment="SHA-256 of a signed message that could be cut elsewhere"),
    Column(
        "after_round_closed",
        Boolean,
        nullable=False,
        server_default=false(),
        comment="the player's round was closed before this win came, which is paid all the same",
    ),
    UniqueConstraint("integration", "provider_tx_id"),
    ForeignKeyConstraint(["player_id"], ["players.id"]).ddl_if(dialect="sqlite"),
    Index("ix_transfers_round", "round_id", "player_id"),
    Index("ix_transfers_player", "player_id", "id"),
    # Partial, so that it has no entries for the wins of other integrations, which have no digest.
    Index(
        "uq_transfers_signed_digest",
        "integration",
        "signed_digest",
        unique=True,
        postgresql_where=text("signed_digest IS NOT NULL"),
        sqlite_where=text("signed_digest IS NOT NULL"),
    ),
    CheckConstraint("amount_minor >= 0 AND real_minor >= 0 AND bonus_minor >= 0", name="sign"),
    CheckConstraint(f"amount_minor <= {MINOR_MAX}", name="digits"),
    CheckConstraint(CURRENCY_CHECK, name="currency"),
    CheckConstraint("real_minor + bonus_minor = amount_minor", name="split"),
    info={"description": "credits that are posted, a row for each"},
)

entries = Table(
    "entries",
    metadata,
    Column("transfer_id", Uuid, primary_key=True),
    Column(
        "account",
        _TEXT,
        CheckConstraint("account IN ('REAL', 'BONUS', 'SETTLEMENT')", name="account"),
        primary_key=True,
    ),
    Column("wallet_id", Uuid, comment="none for the settlement account"),
    Column("amount_minor", BigInteger, nullable=False),
    Column("balance_minor", BigInteger, comment="the wallet's, right after this entry"),
    Column("wallet_version", BigInteger, comment="1 for a wallet's first entry, then without gaps"),
    ForeignKeyConstraint(["transfer_id"], ["transfers.id"]).ddl_if(dialect="sqlite"),
    ForeignKeyConstraint(["wallet_id"], ["wallets.id"]).ddl_if(dialect="sqlite"),
    CheckConstraint(
        "CASE account WHEN 'SETTLEMENT'"
        " THEN amount_minor < 0 AND wallet_id IS NULL"
        " AND balance_minor IS NULL AND wallet_version IS NULL"
        " ELSE amount_minor > 0 AND wallet_id IS NOT NULL AND balance_minor >= amount_minor"
        " AND wallet_version >= 1 END",
        name="leg",
    ),
    info={"description": "the double-entry legs of each transfer, which sum to zero"},
)

conflicts = Table(
    "conflicts",
    metadata,
    Column("transfer_id", Uuid, ForeignKey("transfers.id"), primary_key=True),
    Column("offered", _TEXT, primary_key=True, comment="JSON: the fields that differed, as they were sent"),
    Column("first_seen_at", DateTime(timezone=True), nullable=False),
    comment="ids that were sent again with other content; nothing moved",
)

verified_points = Table(
    "verified_points",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, comment="1, 2, 3, ..."),
    Column("verified_at", DateTime(timezone=True), nullable=False, comment="the state that was read"),
    Column("is_full", Boolean, nullable=False),
    Column("from_transfer_id", Uuid, comment="transfers were read from here; all of them if null"),
    Column("to_transfer_id", Uuid, comment="the highest id in the books; null: there was none"),
    Column("transfers", BigInteger, nullable=False, comment="how many were read"),
    comment="states of the books in which everything held",
)

# Without a foreign key: the row has to survive the loss of its wallet, and must not lock it.
verified_wallets = Table(
    "verified_wallets",
    metadata,
    Column("wallet_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("balance_minor", BigInteger, nullable=False),
    comment="wallets as they were at the last verified point; those that had no entries are not here",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: in the order of time"),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", _TEXT, nullable=False, comment="a user of the operator API, or of the system"),
    Column("via", _TEXT, CheckConstraint("via IN ('api', 'cli', 'process')", name="via"), nullable=False),
    Column("action", _TEXT, nullable=False),
    Column(
        "subject",
        _TEXT,
        nullable=False,
        comment="what was acted on, such as player:ID; of a session a fingerprint, never the id",
    ),
    Column("outcome", _TEXT, nullable=False),
    Column("detail", _TEXT, nullable=False, comment="JSON"),
    Column(
        "login",
        _TEXT,
        nullable=True,
        comment="the login that wrote it, as the database says; none before version 0010, nor on SQLite",
    ),
    Index("ix_audit_log_actor", "actor", "id"),
    Index("ix_audit_log_subject", "subject", "id"),
    CheckConstraint(
        "length(actor) BETWEEN 1 AND 128 AND length(action) <= 64 AND length(subject) <= 1024"
        " AND length(outcome) <= 64 AND length(detail) <= 65536",
        name="size",
    ),
    comment="who changed what, and who was refused",
)
