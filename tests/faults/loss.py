"""Wins that were told as paid and then lost: where no commit waits for a replica, that is what is asked for.

The judge must neither hide it nor take it for a lie. What a reply said while the old primary lived was true
then. From the moment on when there is a new one, whatever is told must be in its books.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from tests.simulator.history import Attempt, Books, Identity, Said


class Loss(msgspec.Struct, frozen=True):
    """What went with a primary."""

    until: float
    """A moment, in Unix seconds, at which there was no new primary yet."""

    identities: frozenset[Identity]
    """The wins that had been told as paid by then and were not in the books of the new one."""

    def excuses(self, attempt: Attempt) -> bool:
        """Tell whether a reply was true when it was given, and is not any more."""
        was_paid = attempt.said is Said.PAID and attempt.ended_at <= self.until
        return was_paid and attempt.asked.identity in self.identities


NO_LOSS: Final = Loss(0.0, frozenset())


def lost_between(attempts: Iterable[Attempt], books: Books, until: float) -> Loss:
    """Return what had been told as paid until a moment and is not in the books."""
    told = {a.asked.identity for a in attempts if a.said is Said.PAID and a.ended_at <= until}
    return Loss(until, frozenset(told - {transfer.asked.identity for transfer in books.posted}))
