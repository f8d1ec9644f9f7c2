"""The throttle limits refused requests: a source with too many in a time window gets 429 until the window ends.

Requests with a valid token are served all the same. Otherwise, one client could lock out all others behind
the same address, such as a proxy's. The throttle isn't what keeps tokens from being guessed, since they are
random; it bounds what guessing costs here, and how much of the logs it fills.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

import structlog

from shared.log_limit import SummedLog
from shared.networks import Address

SOURCES_MAX: Final = 10_000
"""How many sources are remembered, in about 2 MB. The source whose window began first is evicted first."""

_log: Final = structlog.get_logger()


class Throttle:
    """Counts events by source, in a time window that begins at a source's first event."""

    def __init__(self, events_max: int, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Allow `events_max` events of a source within `window_seconds`."""
        self._events_max: Final = events_max
        self._window_seconds: Final = window_seconds
        self._clock: Final = clock
        self._windows: Final[OrderedDict[str, tuple[float, int]]] = OrderedDict()

    def count(self, source: str) -> int:
        """Count an event. Return 0 if it is within the limit, or else the seconds until the window ends."""
        now = self._clock()
        ends_at, events = self._windows.get(source, (0.0, 0))
        if now >= ends_at:
            self._windows.pop(source, None)
            ends_at, events = now + self._window_seconds, 0
        if events >= self._events_max:
            return math.ceil(ends_at - now)
        self._windows[source] = ends_at, events + 1
        if len(self._windows) > SOURCES_MAX:
            self._windows.popitem(last=False)
        return 0

    def allows(self, source: str) -> bool:
        """Count an event, and return whether it is within the limit."""
        return self.count(source) == 0


class ThrottleLog(SummedLog[None]):
    """Logs, once a second at most, the number of requests that got no log line of their own."""

    def __init__(self) -> None:
        """Start with a count of zero."""
        super().__init__()
        self._last_source = ""

    def record(self, source: str) -> None:
        """Count a request that gets no log line of its own."""
        self.add(None)
        self._last_source = source

    def _write(self, kind: None, number: int) -> None:
        del kind  # all events are of one kind
        _log.warning("refusals throttled", requests=number, last_source=self._last_source)


def source_of(address: Address | None) -> str:
    """Return the source that a client's address is counted under: of IPv6 the /64, since it is one customer's.

    >>> from shared.networks import read_address
    >>> [source_of(read_address(text)) for text in ("::ffff:192.0.2.7", "2001:db8:1:2:3::4", "?")]
    ['192.0.2.7', '2001:db8:1:2::/64', 'unknown']
    """
    if address is None:
        return "unknown"
    return f"{IPv6Address(int(address) >> 64 << 64)}/64" if isinstance(address, IPv6Address) else str(address)
