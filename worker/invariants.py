"""What always holds in the books, each with the query for the cases where it does not.

The queries are for both databases. Nothing in them trusts what posts credits, nor the tables' constraints
and triggers.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Invariant:
    """Something that always holds, and a query for each case where it does not."""

    name: str
    promise: str
    broken_cases: str
    """SQL for both databases. Columns that name rows come first: findings are told in their order."""


INVARIANTS: Final = (
    Invariant(
        "sum_zero",
        "the entries of every transfer sum to zero",
        """
        SELECT transfer_id, SUM(amount_minor) AS sum_minor
        FROM entries GROUP BY transfer_id HAVING SUM(amount_minor) <> 0
        """,
    ),
    Invariant(
        "legs",
        "every transfer has exactly the entries that it says, and one of zero has none",
        """
        SELECT t.id AS transfer_id, t.integration, t.provider_tx_id,
            t.amount_minor, t.real_minor, t.bonus_minor,
            COALESCE(e.entries, 0) AS entries, COALESCE(e.real_minor, 0) AS real_entries_minor,
            COALESCE(e.bonus_minor, 0) AS bonus_entries_minor,
            COALESCE(e.settlement_minor, 0) AS settlement_entries_minor
        FROM transfers AS t LEFT JOIN (
            SELECT transfer_id, COUNT(*) AS entries,
                SUM(CASE account WHEN 'REAL' THEN amount_minor ELSE 0 END) AS real_minor,
                SUM(CASE account WHEN 'BONUS' THEN amount_minor ELSE 0 END) AS bonus_minor,
                SUM(CASE account WHEN 'SETTLEMENT' THEN amount_minor ELSE 0 END) AS settlement_minor
            FROM entries GROUP BY transfer_id
        ) AS e ON e.transfer_id = t.id
        WHERE t.real_minor < 0 OR t.bonus_minor < 0 OR t.real_minor + t.bonus_minor <> t.amount_minor
            OR COALESCE(e.real_minor, 0) <> t.real_minor
            OR COALESCE(e.bonus_minor, 0) <> t.bonus_minor
            OR COALESCE(e.settlement_minor, 0) <> -t.amount_minor
            OR COALESCE(e.entries, 0) <> (CASE WHEN t.real_minor > 0 THEN 1 ELSE 0 END)
                + (CASE WHEN t.bonus_minor > 0 THEN 1 ELSE 0 END)
                + (CASE WHEN t.amount_minor > 0 THEN 1 ELSE 0 END)
        """,
    ),
    Invariant(
        "entry_owner",
        "every entry is of a transfer, and on a wallet of that transfer's player, currency and kind",
        """
        SELECT e.transfer_id, e.account, e.wallet_id, t.player_id, t.currency,
            w.player_id AS wallet_player_id, w.currency AS wallet_currency, w.kind AS wallet_kind
        FROM entries AS e
        LEFT JOIN transfers AS t ON t.id = e.transfer_id
        LEFT JOIN wallets AS w ON w.id = e.wallet_id
        WHERE t.id IS NULL
            OR CASE WHEN e.account = 'SETTLEMENT' THEN e.wallet_id IS NOT NULL
                ELSE w.id IS NULL OR w.kind <> e.account
                    OR w.player_id <> t.player_id OR w.currency <> t.currency
                END
        """,
    ),
    Invariant(
        "wallet_balance",
        "every wallet's balance is the sum of its entries, and its version their count",
        """
        SELECT w.id AS wallet_id, w.player_id, w.currency, w.kind, w.balance_minor, w.version,
            COALESCE(e.sum_minor, 0) AS entries_sum_minor, COALESCE(e.entries, 0) AS entries
        FROM wallets AS w LEFT JOIN (
            SELECT wallet_id, SUM(amount_minor) AS sum_minor, COUNT(*) AS entries
            FROM entries WHERE wallet_id IS NOT NULL GROUP BY wallet_id
        ) AS e ON e.wallet_id = w.id
        WHERE w.balance_minor <> COALESCE(e.sum_minor, 0) OR w.version <> COALESCE(e.entries, 0)
        """,
    ),
    Invariant(
        "entry_history",
        "a wallet's entries are numbered from 1, and each leaves the balance before it plus its amount",
        """
        SELECT wallet_id, transfer_id, wallet_version, amount_minor, balance_minor, expected_version,
            before_minor + amount_minor AS expected_balance_minor
        FROM (
            SELECT wallet_id, transfer_id, wallet_version, amount_minor, balance_minor,
                ROW_NUMBER() OVER history AS expected_version,
                COALESCE(LAG(balance_minor) OVER history, 0) AS before_minor
            FROM entries WHERE wallet_id IS NOT NULL
            WINDOW history AS (PARTITION BY wallet_id ORDER BY wallet_version, transfer_id)
        ) AS h
        WHERE wallet_version IS NULL OR wallet_version <> expected_version
            OR balance_minor IS NULL OR balance_minor <> before_minor + amount_minor
        """,
    ),
    Invariant(
        "told_balance",
        "the balance that a transfer's reply told is the one that its entry left",
        """
        SELECT t.id AS transfer_id, e.account, t.integration, t.provider_tx_id,
            CASE e.account WHEN 'REAL' THEN t.real_balance_minor ELSE t.bonus_balance_minor END AS told_minor,
            e.balance_minor AS entry_balance_minor
        FROM entries AS e JOIN transfers AS t ON t.id = e.transfer_id
        WHERE e.account = 'REAL' AND (e.balance_minor IS NULL OR e.balance_minor <> t.real_balance_minor)
            OR e.account = 'BONUS' AND (e.balance_minor IS NULL OR e.balance_minor <> t.bonus_balance_minor)
        """,
    ),
    # Credits only add, so the whole balance orders a player's transfers in a currency: each stands where its
    # told balance puts it, those of zero after the one that they follow. Sums of amounts in that order are
    # what was to be told, of the wallet that got nothing as well, and by transfers that have no entries.
    Invariant(
        "told_history",
        "the balances that a player's replies told are the sums of the transfers up to each",
        """
        SELECT transfer_id, integration, provider_tx_id, player_id, currency,
            real_balance_minor, bonus_balance_minor,
            real_sum_minor AS expected_real_balance_minor, bonus_sum_minor AS expected_bonus_balance_minor
        FROM (
            SELECT id AS transfer_id, integration, provider_tx_id, player_id, currency,
                real_balance_minor, bonus_balance_minor,
                SUM(real_minor) OVER history AS real_sum_minor,
                SUM(bonus_minor) OVER history AS bonus_sum_minor
            FROM transfers
            WINDOW history AS (
                PARTITION BY player_id, currency
                ORDER BY real_balance_minor + bonus_balance_minor, amount_minor DESC, id
                ROWS UNBOUNDED PRECEDING
            )
        ) AS h
        WHERE real_balance_minor <> real_sum_minor OR bonus_balance_minor <> bonus_sum_minor
        """,
    ),
    Invariant(
        "identity",
        "no provider's id is posted twice",
        """
        SELECT integration, provider_tx_id, transfers, transfer_id FROM (
            SELECT integration, provider_tx_id, id AS transfer_id,
                COUNT(*) OVER (PARTITION BY integration, provider_tx_id) AS transfers
            FROM transfers
        ) AS i WHERE transfers > 1
        """,
    ),
)
