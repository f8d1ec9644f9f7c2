"""The exceptions of this project. Expected results are values (`shared.outcome`); only faults are raised.

CreditsError
+-- SettingsError        the process can't start with these settings; the message is one line
+-- MoneyError           a text is no amount in its currency, or the currency is unknown
+-- CursorError          a text is no cursor of that list
+-- LedgerUnavailable    the ledger did not answer in time: whether money moved is unknown
|   +-- LedgerRefused    its database's certificate, our account or its rights are wrong: a person must act
|   +-- ShardMissing     the broker has no queue for a shard: nothing was sent
+-- BrokerUnavailable    the broker did not answer
+-- PoisonMessage        a message can't be decoded, or is not signed with one of our keys
"""

from typing import Final, Literal

PoisonKind = Literal["undecodable", "unsigned", "oversized", "stale"]
"""Why a message is poison: it can't be decoded, has no valid MAC, exceeds its size bound, or is too old."""

PoisonKeep = Literal["owed", "unsigned", "nothing"]
"""What would be lost with the message: signed credits, content that nobody signed, or nothing."""


class CreditsError(Exception):
    """Any fault that this project raises itself."""


class SettingsError(CreditsError):
    """The settings are wrong; the message names the setting and the fault, on one line."""


class MoneyError(CreditsError):
    """A text is no amount of money in the currency, or the currency is unknown."""


class CursorError(CreditsError):
    """A text is not a cursor, or not a cursor of the list that it was given for."""


class LedgerUnavailable(CreditsError):  # noqa: N818  (named after the state)
    """The ledger did not answer in time. The credit may be posted or not: only a retry can tell."""


class LedgerRefused(LedgerUnavailable):
    """The database's certificate does not verify, or the database refuses our account or one of its statements."""


class ShardMissing(LedgerUnavailable):
    """The broker has no queue for a shard, so the message was not delivered to anyone."""


class BrokerUnavailable(CreditsError):  # noqa: N818
    """The broker could not be reached, or refused the connection."""


class PoisonMessage(CreditsError):  # noqa: N818
    """A message that must not be acted on, neither now nor at a retry."""

    def __init__(self, reason: str, kind: PoisonKind = "undecodable", keep: PoisonKeep = "unsigned") -> None:
        """Take the reason, for people; the kind, for metrics; and what would be lost with the message."""
        super().__init__(reason)
        self.kind: Final = kind
        self.keep: Final = keep
