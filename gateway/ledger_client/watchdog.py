"""How long a broker has said nothing though it was asked.

A node that is frozen, or whose machine is gone, closes no connection, and heartbeats take half a minute to
tell. One that is cut off from the majority of its cluster lives and confirms nothing; one that was frozen
and has come back without being let in again may confirm, while no reply finds the way to it.
"""

import asyncio
from typing import Final

import structlog

UNCONFIRMED_SECONDS_MAX: Final = 3.0
"""Longer than most providers wait, and than a queue needs to get another leader."""

UNANSWERED_SECONDS_MAX: Final = 10.0
"""Longer than any provider waits. It may be that no worker is there, and then no node has answers."""

CHECK_SECONDS: Final = 0.25

_log = structlog.get_logger()


class Watchdog:
    """On one connection: from the first message that nothing was heard after, to the next that is heard."""

    def __init__(self, missing: str, seconds_max: float) -> None:
        """Take what is missing, for the log, and how long that is to be borne."""
        self._missing: Final = missing
        self._seconds_max: Final = seconds_max
        self._since: float | None = None

    def sent(self) -> None:
        """Note that something was sent."""
        if self._since is None:
            self._since = asyncio.get_running_loop().time()

    def heard(self) -> None:
        """Note that something was heard."""
        self._since = None

    async def expired(self) -> None:
        """Return when it has lasted for so long."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self._since is not None and clock() - self._since >= self._seconds_max:
                break
        _log.warning("the broker is silent", missing=self._missing, seconds=self._seconds_max)
