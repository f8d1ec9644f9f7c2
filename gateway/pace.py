"""Long work in short turns, so that one large request holds up no other."""

import asyncio
from time import perf_counter
from typing import Final

TURN_SECONDS: Final = 0.0003
"""How long a request may work before others get their turn: a few items of a bulk request."""


class Pace:
    """One request's turns on the event loop."""

    def __init__(self) -> None:
        """Begin the first turn."""
        self._ends = perf_counter() + TURN_SECONDS

    async def rest(self) -> None:
        """Let others have their turn, if this one has been long enough."""
        if perf_counter() >= self._ends:
            await asyncio.sleep(0)
            self._ends = perf_counter() + TURN_SECONDS
