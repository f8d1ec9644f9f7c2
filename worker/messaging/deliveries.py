"""What the broker has delivered to a worker and no turn has taken."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final, NamedTuple

from aiormq.abc import DeliveredMessage

from shared.broker.bodies import is_cut
from shared.wire import is_fit

LATE_LOOK_SECONDS: Final = 0.5
"""How often an idle worker looks whether late credits have rested long enough."""

EXPIRATION_DIGITS_MAX: Final = 12

LIVE_BYTES_MAX: Final = 64 << 20
"""Of live messages that wait here. A gateway has some 4 MiB under way for a worker at most, of large wins."""

Intake = Callable[[DeliveredMessage], Coroutine[Any, Any, None]]


def _patience_seconds(expiration: str | None) -> float:
    """Return how long somebody waits for a message, by its property: for ever if it has none.

    For one that a stranger wrote and that is no number of milliseconds nobody waits.
    """
    if not expiration:
        return inf
    if len(expiration) > EXPIRATION_DIGITS_MAX or not (expiration.isascii() and expiration.isdecimal()):
        return 0.0
    return int(expiration) / 1_000


class Arrival(NamedTuple):
    """A message, and until when somebody may wait for its answers."""

    message: DeliveredMessage
    expires_at: float = inf
    """On the monotonic clock. Gateways may be on machines whose clocks are others."""


@dataclass(slots=True)
class DeliveryBuffer:
    """What the broker has delivered and no turn has taken."""

    live: deque[Arrival] = field(default_factory=deque)
    late: deque[Arrival] = field(default_factory=deque)
    live_bytes: int = 0
    """Of the bodies in `live`, and of those that are just coming."""

    late_rests_until: float = 0.0
    """On the monotonic clock; after an outage of the ledger, late credits wait a little."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def has_work(self) -> bool:
        """Tell whether there is something to take."""
        return bool(self.live) or (bool(self.late) and time.monotonic() >= self.late_rests_until)

    def wants_live(self, size: int) -> bool:
        """Tell whether the body of a live message is to be gathered, and count it as waiting if it is."""
        if not is_fit(size) or self.live_bytes + size > LIVE_BYTES_MAX:
            return False
        self.live_bytes += size
        return True

    def next_live(self) -> Arrival:
        """Take the next live message out."""
        arrival = self.live.popleft()
        if not is_cut(arrival.message):
            self.live_bytes -= len(arrival.message.body)
        return arrival

    def on_delivery(self, queue: deque[Arrival]) -> Intake:
        """Return the consumer callback that fills `queue`.

        How long a message was in the broker is not known here: the broker itself moves those that expire
        there. So one that has waited here for all of its time is past it, and one may be that has not.
        """

        async def take_in(message: DeliveredMessage) -> None:
            seconds = _patience_seconds(message.header.properties.expiration)
            queue.append(Arrival(message, time.monotonic() + seconds))
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
