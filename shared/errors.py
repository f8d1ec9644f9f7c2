"""The faults of this project. Expected results are values (`shared.outcome`); only faults are raised.

CreditsError
+-- SettingsError        the process can't start with these settings; the message is one clear line
+-- MoneyError           a text is no amount of that currency, or the currency is unknown
+-- CursorError          a text is no cursor of that list
+-- LedgerUnavailable    no answer from the ledger in time: whether money moved is unknown
|   +-- LedgerRefused    its database's certificate, our account or its rights are wrong: a person must act
|   +-- ShardMissing     the broker has no queue for a shard: nothing was sent
+-- BrokerUnavailable    no answer from the broker
+-- PoisonMessage        a message that can't be decoded, or that nobody of ours has signed
"""

from typing import Final, Literal

PoisonKind = Literal["undecodable", "unsigned", "oversized", "stale"]
"""Why a message is poison: it has no meaning, no valid MAC, more than its bound, or it is too old."""

PoisonKeep = Literal["owed", "unsigned", "nothing"]
"""What may be lost with a message: credits that one of ours has signed, what nobody signed, or nothing."""


class CreditsError(Exception):
    """Any fault that this project raises itself."""


class SettingsError(CreditsError):
    """The settings are wrong; the message says which and how, on one line."""


class MoneyError(CreditsError):
    """A text is no amount of money in the currency, or the currency is unknown."""


class CursorError(CreditsError):
    """A text is not a cursor, or not one of the list that it was given for."""


class LedgerUnavailable(CreditsError):  # noqa: N818  (it says a state, as in the provider's reply)
    """The ledger gave no answer in time. The credit may be posted or not: only a retry can tell."""


class LedgerRefused(LedgerUnavailable):
    """The database's certificate does not verify, or it refuses our account, or what that may not do."""


class ShardMissing(LedgerUnavailable):
    """The broker has no queue for a shard, so what was to go over it has reached nobody."""


class BrokerUnavailable(CreditsError):  # noqa: N818
    """The broker could not be reached, or refused."""


class PoisonMessage(CreditsError):  # noqa: N818
    """A message that is not to be acted on, now or at a retry."""

    def __init__(self, reason: str, kind: PoisonKind = "undecodable", keep: PoisonKeep = "unsigned") -> None:
        """Take why, for people, of what kind it is, for counters, and what may be lost with it."""
        super().__init__(reason)
        self.kind: Final = kind
        self.keep: Final = keep
