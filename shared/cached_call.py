"""Caches the result of a call for a moment, and shares one call among all who need its result meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

READINESS_TTL_SECONDS: Final = 0.5
"""How long a process may report the readiness that it found last."""

T = TypeVar("T")


class CachedCall(Generic[T]):
    """A call that runs at most once at a time, and whose result is then valid for some seconds."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        """Take the call, and for how long its result is valid."""
        self._call: Final = call
        self._seconds: Final = seconds
        self._task: asyncio.Task[T] | None = None
        self._expires_at = 0.0

    async def get(self) -> T:
        """Return the cached result, or that of the running call, or of a new one."""
        loop = asyncio.get_running_loop()
        if self._task is None or (self._task.done() and loop.time() >= self._expires_at):
            self._task = loop.create_task(self._run())
        return await asyncio.shield(self._task)

    async def _run(self) -> T:
        try:
            return await self._call()
        finally:
            self._expires_at = asyncio.get_running_loop().time() + self._seconds
