"""What the broker has delivered to a worker and no turn has taken."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from aiormq.abc import DeliveredMessage

LATE_LOOK_SECONDS: Final = 0.5
"""How often an idle worker looks whether late credits have rested long enough."""

Intake = Callable[[DeliveredMessage], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Inbox:
    """What the broker has delivered and no turn has taken."""

    live: deque[DeliveredMessage] = field(default_factory=deque)
    late: deque[DeliveredMessage] = field(default_factory=deque)
    late_rests_until: float = 0.0
    """On the monotonic clock; after an outage of the ledger, late credits wait a little."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def has_work(self) -> bool:
        """Tell whether there is something to take."""
        return bool(self.live) or (bool(self.late) and time.monotonic() >= self.late_rests_until)

    def intake(self, queue: deque[DeliveredMessage]) -> Intake:
        """Return the consumer callback that fills `queue`."""

        async def take_in(message: DeliveredMessage) -> None:
            queue.append(message)
            self.changed.set()

        return take_in

    async def wait(self) -> None:
        """Return when something has changed, or late credits may have rested enough."""
        self.changed.clear()
        try:
            async with asyncio.timeout(LATE_LOOK_SECONDS if self.late else None):
                await self.changed.wait()
        except TimeoutError:
            pass
