"""The ledger's invariants: what always holds in it, each with a query for the cases that break it.

The queries run on both databases. They rely neither on the code that posts credits nor on the tables'
constraints and triggers. `runner` limits what a query reads, by parameters and by the placeholder <verified>:

- a query by slice reads the transfers with ids from :first to :last, and their entries;
- a query of a history reads from :first on, and continues from the balance and version that <verified> has of
  each wallet. An entry was verified before if its number is at most that version and its transfer's id at most
  :verified_to. In a full audit :first and :verified_to are below every id, and <verified> is empty.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Scope(Enum):
    """How an invariant is checked: of which rows, and in which audits."""

    BY_SLICE = "for every slice of the transfers that are read"
    AT_ONCE = "for all that is read, in one query"
    IN_FULL = "for everything, in full audits only"


@dataclass(frozen=True, slots=True)
class Invariant:
    """A statement about the ledger that always holds, and a query for each case that breaks it."""

    name: str
    description: str
    scope: Scope
    broken_cases: str
    """SQL for both databases. The columns that identify a row come first: findings are sorted by them."""

    broken_cases_since: str | None = None
    """The query for an incremental audit, if it is another one."""


_NEW_ENTRY: Final = (
    "(v.version IS NULL OR e.wallet_version IS NULL OR e.wallet_version > v.version OR e.transfer_id > :verified_to)"
)

# Sorted by id from the nearest on, where the transfer nearly always is.
_TRANSFER_WITH_BALANCES: Final = """
    SELECT t.id FROM transfers AS t
    WHERE t.player_id = h.player_id AND t.currency = h.currency AND {} AND t.amount_minor > 0
        AND t.real_balance_minor = h.real_balance_minor AND t.bonus_balance_minor = h.bonus_balance_minor
    ORDER BY t.id DESC LIMIT 1
"""


def _posted_twice(key: str) -> tuple[str, str]:
    """Return the queries, for a full and an incremental audit, for transfers of one integration that share a key."""
    return (
        f"""
        SELECT integration, provider_tx_id, transfers, transfer_id FROM (
            SELECT integration, provider_tx_id, id AS transfer_id,
                COUNT(*) OVER (PARTITION BY integration, {key}) AS transfers
            FROM transfers WHERE {key} IS NOT NULL
        ) AS i WHERE transfers > 1
        """,  # noqa: S608
        f"""
        SELECT integration, provider_tx_id, transfers, transfer_id FROM (
            SELECT integration, provider_tx_id, id AS transfer_id, (
                SELECT COUNT(*) FROM transfers AS o
                WHERE o.integration = t.integration AND o.{key} = t.{key}
            ) AS transfers
            FROM transfers AS t WHERE t.id >= :first
        ) AS i WHERE transfers > 1
        """,  # noqa: S608
    )


INVARIANTS: Final = (
    Invariant(
        "sum_zero",
        "the entries of every transfer sum to zero",
        Scope.BY_SLICE,
        """
        SELECT transfer_id, SUM(amount_minor) AS sum_minor
        FROM entries WHERE transfer_id BETWEEN :first AND :last
        GROUP BY transfer_id HAVING SUM(amount_minor) <> 0
        """,
    ),
    Invariant(
        "legs",
        "every transfer has exactly the entries that it says, and one of zero has none",
        Scope.BY_SLICE,
        """
        SELECT * FROM (
            SELECT t.id AS transfer_id, t.integration, t.provider_tx_id,
                t.amount_minor, t.real_minor, t.bonus_minor, COUNT(e.transfer_id) AS entries,
                SUM(CASE e.account WHEN 'REAL' THEN e.amount_minor ELSE 0 END) AS real_entries_minor,
                SUM(CASE e.account WHEN 'BONUS' THEN e.amount_minor ELSE 0 END) AS bonus_entries_minor,
                SUM(CASE e.account WHEN 'SETTLEMENT' THEN e.amount_minor ELSE 0 END)
                    AS settlement_entries_minor
            FROM transfers AS t
            LEFT JOIN entries AS e ON e.transfer_id = t.id AND e.transfer_id BETWEEN :first AND :last
            WHERE t.id BETWEEN :first AND :last
            GROUP BY t.id, t.integration, t.provider_tx_id, t.amount_minor, t.real_minor, t.bonus_minor
        ) AS s
        WHERE real_minor < 0 OR bonus_minor < 0 OR real_minor + bonus_minor <> amount_minor
            OR real_entries_minor <> real_minor OR bonus_entries_minor <> bonus_minor
            OR settlement_entries_minor <> -amount_minor
            OR entries <> (CASE WHEN real_minor > 0 THEN 1 ELSE 0 END)
                + (CASE WHEN bonus_minor > 0 THEN 1 ELSE 0 END)
                + (CASE WHEN amount_minor > 0 THEN 1 ELSE 0 END)
        """,
    ),
    Invariant(
        "entry_owner",
        "every entry is of a transfer, and on a wallet of that transfer's player, currency and kind",
        Scope.BY_SLICE,
        """
        SELECT e.transfer_id, e.account, e.wallet_id, t.player_id, t.currency,
            w.player_id AS wallet_player_id, w.currency AS wallet_currency, w.kind AS wallet_kind
        FROM entries AS e
        LEFT JOIN transfers AS t ON t.id = e.transfer_id AND t.id BETWEEN :first AND :last
        LEFT JOIN wallets AS w ON w.id = e.wallet_id
        WHERE e.transfer_id BETWEEN :first AND :last AND (
            t.id IS NULL
            OR CASE WHEN e.account = 'SETTLEMENT' THEN e.wallet_id IS NOT NULL
                ELSE w.id IS NULL OR w.kind <> e.account
                    OR w.player_id <> t.player_id OR w.currency <> t.currency
                END
        )
        """,
    ),
    Invariant(
        "told_balance",
        "the balance that a transfer's reply told is the one that its entry left",
        Scope.BY_SLICE,
        """
        SELECT t.id AS transfer_id, e.account, t.integration, t.provider_tx_id,
            CASE e.account WHEN 'REAL' THEN t.real_balance_minor ELSE t.bonus_balance_minor END AS told_minor,
            e.balance_minor AS entry_balance_minor
        FROM entries AS e JOIN transfers AS t ON t.id = e.transfer_id
        WHERE e.transfer_id BETWEEN :first AND :last AND t.id BETWEEN :first AND :last AND (
            e.account = 'REAL' AND (e.balance_minor IS NULL OR e.balance_minor <> t.real_balance_minor)
            OR e.account = 'BONUS' AND (e.balance_minor IS NULL OR e.balance_minor <> t.bonus_balance_minor)
        )
        """,
    ),
    # A union of three lists, summed by wallet, not a join: a join's plan depends on a guess of how many are new.
    Invariant(
        "wallet_balance",
        "every wallet's balance is the sum of its entries, and its version their count",
        Scope.AT_ONCE,
        f"""
        SELECT wallet_id, MAX(player_id) AS player_id, MAX(currency) AS currency, MAX(kind) AS kind,
            SUM(balance_minor) AS balance_minor, SUM(version) AS version,
            SUM(entry_minor) AS entries_sum_minor, SUM(entries) AS entries
        FROM (
            SELECT id AS wallet_id, player_id, currency, kind, balance_minor, version,
                0 AS entry_minor, 0 AS entries
            FROM wallets
            UNION ALL
            SELECT v.wallet_id, NULL, NULL, NULL, 0, 0, v.balance_minor, v.version FROM <verified> AS v
            UNION ALL
            SELECT e.wallet_id, NULL, NULL, NULL, 0, 0, e.amount_minor, 1
            FROM entries AS e LEFT JOIN <verified> AS v ON v.wallet_id = e.wallet_id
            WHERE e.transfer_id >= :first AND e.wallet_id IS NOT NULL AND {_NEW_ENTRY}
        ) AS s
        GROUP BY wallet_id
        HAVING SUM(balance_minor) <> SUM(entry_minor) OR SUM(version) <> SUM(entries)
        """,  # noqa: S608
    ),
    Invariant(
        "entry_history",
        "a wallet's entries are numbered from 1, and each leaves the balance before it plus its amount",
        Scope.AT_ONCE,
        f"""
        SELECT wallet_id, transfer_id, wallet_version, amount_minor, balance_minor, expected_version,
            before_minor + amount_minor AS expected_balance_minor
        FROM (
            SELECT e.wallet_id, e.transfer_id, e.wallet_version, e.amount_minor, e.balance_minor,
                COALESCE(v.version, 0) + ROW_NUMBER() OVER history AS expected_version,
                COALESCE(LAG(e.balance_minor) OVER history, v.balance_minor, 0) AS before_minor
            FROM entries AS e LEFT JOIN <verified> AS v ON v.wallet_id = e.wallet_id
            WHERE e.transfer_id >= :first AND e.wallet_id IS NOT NULL AND {_NEW_ENTRY}
            WINDOW history AS (PARTITION BY e.wallet_id ORDER BY e.wallet_version, e.transfer_id)
        ) AS h
        WHERE wallet_version IS NULL OR wallet_version <> expected_version
            OR balance_minor IS NULL OR balance_minor <> before_minor + amount_minor
        """,  # noqa: S608
    ),
    # Credits only add, so a player's transfers in a currency are ordered by the total balance that each replied,
    # those of zero after the one that they follow. The running sums of the amounts in that order are the balances
    # that the replies must have given: also of the wallet that got nothing, and of transfers without entries.
    # Only its balances show whether a lost bet was verified before: if they total less than the verified ones,
    # they must equal those that some other transfer left.
    Invariant(
        "told_history",
        "the balances that a player's replies told are the sums of the transfers up to each",
        Scope.AT_ONCE,
        f"""
        SELECT transfer_id, integration, provider_tx_id, player_id, currency,
            real_balance_minor, bonus_balance_minor,
            CASE earlier WHEN 0 THEN real_sum_minor END AS expected_real_balance_minor,
            CASE earlier WHEN 0 THEN bonus_sum_minor END AS expected_bonus_balance_minor
        FROM (
            SELECT transfer_id, integration, provider_tx_id, player_id, currency,
                real_balance_minor, bonus_balance_minor, earlier,
                real_before_minor + SUM(real_minor) OVER history AS real_sum_minor,
                bonus_before_minor + SUM(bonus_minor) OVER history AS bonus_sum_minor
            FROM (
                SELECT t.id AS transfer_id, t.integration, t.provider_tx_id, t.player_id, t.currency,
                    t.amount_minor, t.real_minor, t.bonus_minor, t.real_balance_minor, t.bonus_balance_minor,
                    COALESCE(rv.balance_minor, 0) AS real_before_minor,
                    COALESCE(bv.balance_minor, 0) AS bonus_before_minor,
                    CASE WHEN t.amount_minor = 0 AND t.id <= :verified_to
                        AND t.real_balance_minor + t.bonus_balance_minor
                            < COALESCE(rv.balance_minor, 0) + COALESCE(bv.balance_minor, 0)
                        THEN 1 ELSE 0 END AS earlier
                FROM transfers AS t
                LEFT JOIN (<verified> AS rv JOIN wallets AS r ON r.id = rv.wallet_id AND r.kind = 'REAL')
                    ON r.player_id = t.player_id AND r.currency = t.currency
                LEFT JOIN (<verified> AS bv JOIN wallets AS b ON b.id = bv.wallet_id AND b.kind = 'BONUS')
                    ON b.player_id = t.player_id AND b.currency = t.currency
                WHERE t.id >= :first AND NOT EXISTS (
                    SELECT 1 FROM entries AS e JOIN <verified> AS v ON v.wallet_id = e.wallet_id
                    WHERE e.transfer_id = t.id AND e.transfer_id BETWEEN :first AND :verified_to
                        AND e.wallet_version <= v.version
                )
            ) AS n
            WINDOW history AS (
                PARTITION BY player_id, currency, earlier
                ORDER BY real_balance_minor + bonus_balance_minor, amount_minor DESC, transfer_id
                ROWS UNBOUNDED PRECEDING
            )
        ) AS h
        WHERE CASE earlier WHEN 0
            THEN real_balance_minor <> real_sum_minor OR bonus_balance_minor <> bonus_sum_minor
            ELSE (real_balance_minor <> 0 OR bonus_balance_minor <> 0) AND COALESCE(
                ({_TRANSFER_WITH_BALANCES.format("t.id < h.transfer_id")}),
                ({_TRANSFER_WITH_BALANCES.format("t.id > h.transfer_id")})
            ) IS NULL END
        """,  # noqa: S608
    ),
    Invariant(
        "identity",
        "no provider's id is posted twice",
        Scope.AT_ONCE,
        *_posted_twice("provider_tx_id"),
    ),
    Invariant(
        "signed_once",
        "no signed message that may pay once has paid two transfers",
        Scope.AT_ONCE,
        *_posted_twice("signed_digest"),
    ),
    Invariant(
        "verified_history",
        "what was verified is still there: every wallet's last entry of then, and the balance that it left",
        Scope.IN_FULL,
        """
        SELECT v.wallet_id, v.version, v.balance_minor, e.transfer_id,
            e.balance_minor AS entry_balance_minor
        FROM verified_wallets AS v
        LEFT JOIN entries AS e ON e.wallet_id = v.wallet_id AND e.wallet_version = v.version
        WHERE e.balance_minor IS NULL OR e.balance_minor <> v.balance_minor
        """,
    ),
    # COUNT of a column that is in no index counts the rows of the table itself.
    Invariant(
        "indexes",
        "every row of the tables is found by its id",
        Scope.IN_FULL,
        """
        SELECT 'transfers' AS table_name, COUNT(amount_minor) AS rows_held, :transfers AS rows_found
        FROM transfers HAVING COUNT(amount_minor) <> :transfers
        UNION ALL
        SELECT 'entries', COUNT(amount_minor), :entries FROM entries HAVING COUNT(amount_minor) <> :entries
        """,
    ),
)

WALLET_BALANCE: Final = next(i for i in INVARIANTS if i.name == "wallet_balance")
"""Its query also finds the wallets of which an incremental audit has not read all new entries."""
