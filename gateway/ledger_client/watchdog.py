"""A watchdog over a broker that has stopped responding on a connection that is still open.

A node that is frozen, or whose machine is gone, leaves its connections open, and heartbeats take half a minute to
notice it. A node that is cut off from the majority of its cluster is alive and confirms nothing. A node that was frozen
and has come back without being readmitted to its cluster may confirm, while no reply can reach it.
"""

import asyncio
from typing import Final

import structlog

UNCONFIRMED_SECONDS_MAX: Final = 3.0
"""Longer than most providers wait, and than a queue needs to elect another leader."""

UNANSWERED_SECONDS_MAX: Final = 10.0
"""Longer than any provider waits. When there is no worker at all, another node has no replies either."""

CHECK_SECONDS: Final = 0.25

_log = structlog.get_logger()


class Watchdog:
    """Measures for how long a connection has sent messages and received nothing."""

    def __init__(self, missing: str, seconds_max: float) -> None:
        """Take what is missing, for the log, and how long it may be."""
        self._missing: Final = missing
        self._seconds_max: Final = seconds_max
        self._since: float | None = None

    def sent(self) -> None:
        """Record that a message was sent."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()

    def heard(self) -> None:
        """Record that something was received."""
        self._since = None

    async def expired(self) -> None:
        """Return when nothing was received for too long, and log it."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self._since is not None and clock() - self._since >= self._seconds_max:
                break
        _log.warning("the broker is silent", missing=self._missing, seconds=self._seconds_max)
