"""Who waits for the ledger, and when they are too many.

Some hundred callers make batches with which gateway and ledger are fast; more only wait for one another. So a
crowd may come and wait, but not stay. A bound on their number holds the gateway steady; one on how long
answers take lets in a crowd, then nobody, by turns.
"""

from typing import Final

CALLERS_MAX: Final = 400
"""So many wait for as long as they like; a gateway pays some thousands a second, so for a tenth of one."""

BURST_SECONDS: Final = 0.5
"""So long may more than those wait."""

COOLDOWN_SECONDS: Final = 0.5
"""After so long without too many the next crowd is a new one."""

STALL_SECONDS: Final = 1.0
"""After so long without an answer nobody is too many: who waits may be answered when the outage is over."""


class ConcurrencyLimit:
    """How many wait, and for how long they have been too many. Times are the event loop's, in seconds."""

    def __init__(self) -> None:
        """Begin with nobody, and no answer yet."""
        self.waiting = 0
        self._answered_at = self._crowd_since = self._crowd_at = float("-inf")

    def record_answer(self, now: float) -> None:
        """Note that one of them has its answer."""
        self._answered_at = now

    def is_exceeded(self, more: int, now: float) -> bool:
        """Tell whether so many more would be too many."""
        if self.waiting + more < CALLERS_MAX:
            return False
        if now > self._crowd_at + COOLDOWN_SECONDS:
            self._crowd_since = now
        self._crowd_at = now
        return now >= self._crowd_since + BURST_SECONDS and now <= self._answered_at + STALL_SECONDS
