"""Refusals are bounded: whoever collects too many within a window is answered 429 until its end.

A token that is right is served all the same, so that nobody behind an address that others share, such as a
proxy's, can be locked out by them. A random token is not found by guessing; what is bounded is what guessing
costs here and how much of the logs it fills.
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
"""So many sources are remembered, about 2 MB; the longest known is forgotten first."""

_log: Final = structlog.get_logger()


class Throttle:
    """Counts refusals by source, in a window that begins at the first."""

    def __init__(self, refusals_max: int, window_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Take how many refusals a source may have within a window of so many seconds."""
        self._refusals_max: Final = refusals_max
        self._window_seconds: Final = window_seconds
        self._clock: Final = clock
        self._windows: Final[OrderedDict[str, tuple[float, int]]] = OrderedDict()

    def refuse(self, source: str) -> int:
        """Count a refusal; return 0, or the whole seconds until the window ends if it is one too many."""
        now = self._clock()
        ends_at, refusals = self._windows.get(source, (0.0, 0))
        if now >= ends_at:
            self._windows.pop(source, None)
            ends_at, refusals = now + self._window_seconds, 0
        if refusals >= self._refusals_max:
            return math.ceil(ends_at - now)
        self._windows[source] = ends_at, refusals + 1
        if len(self._windows) > SOURCES_MAX:
            self._windows.popitem(last=False)
        return 0

    def allows(self, source: str) -> bool:
        """Count one more of what is bounded for a source; tell whether it is within the bound."""
        return self.refuse(source) == 0


class ThrottleLog(SummedLog[None]):
    """Logs once a second how many refusals have no line of their own, whoever was refused."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self._last_source = ""

    def record(self, source: str) -> None:
        """Count a request."""
        self.add(None)
        self._last_source = source

    def _write(self, kind: None, number: int) -> None:
        del kind  # there is only one
        _log.warning("refusals throttled", requests=number, last_source=self._last_source)


def source_of(address: Address | None) -> str:
    """Return what a client is counted under: a network of IPv6 is one customer's.

    >>> from shared.networks import read_address
    >>> [source_of(read_address(text)) for text in ("::ffff:192.0.2.7", "2001:db8:1:2:3::4", "?")]
    ['192.0.2.7', '2001:db8:1:2::/64', 'unknown']
    """
    if address is None:
        return "unknown"
    return f"{IPv6Address(int(address) >> 64 << 64)}/64" if isinstance(address, IPv6Address) else str(address)
