"""Places at the ledger: what is asked on the strength of one signature takes no more than a few at once.

Not every signature covers all that makes a question. Whoever has one request of such a provider can sign as
many different questions with it as they like, and would take all the places that there are for others.
"""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from shared.errors import LedgerUnavailable

SLOTS_PER_KEY: Final = 16


class SlotLimit:
    """So many places for each of whatever they are given by; who comes beyond waits for a turn."""

    def __init__(self) -> None:
        """Begin with all free."""
        self._taken: Final[WeakValueDictionary[Hashable, asyncio.Semaphore]] = WeakValueDictionary()
        """Those that somebody has or waits for."""

    @asynccontextmanager
    async def slot(self, key: Hashable, deadline: float) -> AsyncIterator[None]:
        """Have a place of a key for a while. Raises LedgerUnavailable if there is none by the deadline."""
        places = self._of(key)
        try:
            async with asyncio.timeout_at(deadline):
                await places.acquire()
        except TimeoutError:
            raise LedgerUnavailable("too much of one signature is under way") from None
        try:
            yield
        finally:
            places.release()

    async def try_acquire(self, key: Hashable, taken: list[asyncio.Semaphore]) -> bool:
        """Take a place if one is free, at once: whoever asks is to release what is then in `taken`."""
        places = self._of(key)
        if places.locked():
            return False
        await places.acquire()
        taken.append(places)
        return True

    def _of(self, key: Hashable) -> asyncio.Semaphore:
        places = self._taken.get(key)
        if places is None:
            self._taken[key] = places = asyncio.Semaphore(SLOTS_PER_KEY)
        return places
