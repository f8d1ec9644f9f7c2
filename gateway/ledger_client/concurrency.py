"""Who waits for the ledger, and when they are too many.

Some hundred callers make batches with which gateway and ledger are fast; more only wait for one another. So a
crowd may come and wait, but not stay. A bound on their number holds the gateway steady; one on how long
answers take lets in a crowd, then nobody, by turns.
"""

from typing import Final

CALLERS_MAX: Final = 400
"""So many wait for as long as they like; a gateway pays some thousands a second, so for a tenth of one."""

CROWD_SECONDS: Final = 0.5
"""So long may more than those wait."""

CALM_SECONDS: Final = 0.5
"""After so long without too many the next crowd is a new one."""

OUTAGE_SECONDS: Final = 1.0
"""After so long without an answer nobody is too many: who waits may be answered when the outage is over."""


class Callers:
    """How many wait, and for how long they have been too many. Times are the event loop's, in seconds."""

    def __init__(self) -> None:
        """Begin with nobody, and no answer yet."""
        self.waiting = 0
        self._answered_at = self._crowd_since = self._crowd_at = float("-inf")

    def answered(self, now: float) -> None:
        """Note that one of them has its answer."""
        self._answered_at = now

    def are_too_many(self, more: int, now: float) -> bool:
        """Tell whether so many more would be too many."""
        if self.waiting + more < CALLERS_MAX:
            return False
        if now > self._crowd_at + CALM_SECONDS:
            self._crowd_since = now
        self._crowd_at = now
        return now >= self._crowd_since + CROWD_SECONDS and now <= self._answered_at + OUTAGE_SECONDS
