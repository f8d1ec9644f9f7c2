"""Wins that were told as paid and then lost: where no commit waits for a replica, that is what is asked for.

The judge must neither hide it nor take it for a lie. What a reply said while the old primary lived was true
then. From the moment on when there is a new one, whatever is told must be in its books.
"""

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from simulator.history import (
    Attempt,
    Books,
    Identity,
    ReplyMeaning,
    Verdict,
    Violation,
    check_history,
    contradictions,
)


class Loss(msgspec.Struct, frozen=True):
    """What went with a primary."""

    until: float
    """A moment, in Unix seconds, at which there was no new primary yet."""

    transfers: frozenset[tuple[Identity, str]]
    """Wins with the transfers that had been told by then and are not in the books of the new one. A win may
    have been paid there once more already, as another transfer."""

    @property
    def identities(self) -> frozenset[Identity]:
        """The wins."""
        return frozenset(identity for identity, _ in self.transfers)

    def excuses(self, attempt: Attempt) -> bool:
        """Tell whether a reply was true when it was given, and is not any more."""
        return attempt.ended_at <= self.until and _told(attempt) in self.transfers

    def check_history(self, attempts: Iterable[Attempt], books: Books, confirmed: Collection[Identity]) -> Verdict:
        """Hold against the ledger what is not excused, and what is against itself."""
        attempts = list(attempts)
        binding = [attempt for attempt in attempts if not self.excuses(attempt)]
        found = dict(check_history(binding, books, confirmed=confirmed).found)
        if untrue := contradictions(attempt for attempt in attempts if self.excuses(attempt)):
            found[Violation.UNTRUE] = [*found.get(Violation.UNTRUE, ()), *untrue]
        return Verdict(found)


NO_LOSS: Final = Loss(0.0, frozenset())


def _told(attempt: Attempt) -> tuple[Identity, str] | None:
    if attempt.meaning is not ReplyMeaning.PAID or attempt.receipt is None:
        return None
    return attempt.content.identity, attempt.receipt.transfer_id


def lost_between(attempts: Iterable[Attempt], books: Books, until: float) -> Loss:
    """Return what had been told as paid until a moment and is not in the books."""
    told = {_told(attempt) for attempt in attempts if attempt.ended_at <= until}
    held = {(posted.content.identity, posted.receipt.transfer_id) for posted in books.posted}
    return Loss(until, frozenset(each for each in told if each is not None and each not in held))
