"""An answer that stands for a moment: however many ask, it is looked for no more often."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

READINESS_STANDS_SECONDS: Final = 0.5
"""How long what a process has found out about its readiness stands."""

T = TypeVar("T")


class Remembered(Generic[T]):
    """An answer that is looked for once, for all who ask meanwhile and for a moment after."""

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        """Take what finds the answer, and how long it stands."""
        self._ask: Final = ask
        self._seconds: Final = seconds
        self._answer: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        """Return the answer."""
        loop = asyncio.get_running_loop()
        if self._answer is None or (self._answer.done() and loop.time() >= self._until):
            self._answer = loop.create_task(self._find())
        return await asyncio.shield(self._answer)

    async def _find(self) -> T:
        try:
            return await self._ask()
        finally:
            self._until = asyncio.get_running_loop().time() + self._seconds
