"""The bound on the calls that wait for one ledger.

A few hundred callers fill batches with which gateway and ledger are fast; any more only wait for one another. So
more may wait during a burst, but not for longer. The bound is on the number of callers, because one on the time
that replies take would oscillate: it would admit a burst, then nobody, then a burst again.
"""

from typing import Final

CALLERS_MAX: Final = 400
"""Callers that may wait without limit; at a few thousand credits a second this is about 0.1 s of work."""

BURST_SECONDS: Final = 0.5
"""How long more callers than that may wait."""

COOLDOWN_SECONDS: Final = 0.5
"""How long the callers must have stayed below the bound before the next burst counts as a new one."""

STALL_SECONDS: Final = 1.0
"""How long after the ledger's last reply the callers are still bounded. After that the ledger is not slow but away,
and callers that wait may get their reply when it is back."""


class ConcurrencyLimit:
    """Counts the calls that wait for one ledger, and tells when there is no room for more.

    The ledger's client counts its calls here; load shedding and the metrics read it. Two rules bound it: a fixed number
    of operations and queries, and a number of callers that only a short burst may exceed. A bulk request is one
    caller with many operations. Times are the event loop's, in seconds.
    """

    def __init__(self, in_flight_max: int) -> None:
        """Take the bound on the operations and queries that wait at once, `[gateway] in_flight_max`."""
        self.in_flight = 0
        """Operations and queries that wait for their reply."""
        self.callers = 0
        """Calls that wait; each has one or more operations and queries."""
        self._in_flight_max: Final = in_flight_max
        self._replied_at = self._burst_since = self._exceeded_at = float("-inf")

    @property
    def free(self) -> int:
        """How many more operations and queries there is room for."""
        return max(0, self._in_flight_max - self.in_flight)

    def enter(self, number: int) -> None:
        """Count a call with this number of operations and queries."""
        self.in_flight += number
        self.callers += 1

    def leave(self, number: int) -> None:
        """Remove a call with this number of operations and queries from the counts."""
        self.in_flight -= number
        self.callers -= 1

    def record_reply(self, now: float) -> None:
        """Record that the ledger has replied to a call."""
        self._replied_at = now

    def is_exceeded(self, more: int, now: float) -> bool:
        """Tell whether there is no room for another call, with `more` admitted that are not counted yet."""
        if self.in_flight + more >= self._in_flight_max:
            return True
        if self.callers + more < CALLERS_MAX:
            return False
        if now > self._exceeded_at + COOLDOWN_SECONDS:
            self._burst_since = now
        self._exceeded_at = now
        return now >= self._burst_since + BURST_SECONDS and now <= self._replied_at + STALL_SECONDS
