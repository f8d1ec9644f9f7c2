"""A bound on the calls to the ledger that are under way for one signature, so that others find room beside them.

Not every provider's signature covers the whole content of a call. With one captured request of such a provider
anyone can make any number of different calls that are signed correctly.
"""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakValueDictionary

from shared.errors import LedgerUnavailable

SLOTS_PER_KEY: Final = 16


class SlotLimit:
    """Lets a few callers at a time hold a slot of the same key; further ones wait until one is free."""

    def __init__(self) -> None:
        """Start with all slots free."""
        self._semaphores: Final[WeakValueDictionary[Hashable, asyncio.Semaphore]] = WeakValueDictionary()
        """By key, as long as a caller holds or awaits one of its slots."""

    @asynccontextmanager
    async def slot(self, key: Hashable, deadline: float) -> AsyncIterator[None]:
        """Hold a slot of a key within the block. Raises LedgerUnavailable if none is free by the deadline."""
        semaphore = self._semaphore(key)
        try:
            async with asyncio.timeout_at(deadline):
                await semaphore.acquire()
        except TimeoutError:
            raise LedgerUnavailable("too much of one signature is under way") from None
        try:
            yield
        finally:
            semaphore.release()

    async def try_acquire(self, key: Hashable) -> asyncio.Semaphore | None:
        """Take a slot and return what releases it, or None when none is free now."""
        semaphore = self._semaphore(key)
        if semaphore.locked():
            return None
        await semaphore.acquire()
        return semaphore

    def _semaphore(self, key: Hashable) -> asyncio.Semaphore:
        semaphore = self._semaphores.get(key)
        if semaphore is None:
            self._semaphores[key] = semaphore = asyncio.Semaphore(SLOTS_PER_KEY)
        return semaphore
