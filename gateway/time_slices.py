"""Time slices for long work: large requests hold up no others, however many there are of them."""

import asyncio
from collections import deque
from heapq import heappop, heappush
from itertools import count
from time import perf_counter
from typing import Final

SLICE_SECONDS: Final = 0.0003
"""How long large requests, all together, may work in one turn of the event loop: a few items of a bulk."""

PRIORITY_IN_A_ROW_MAX: Final = 4
"""How many slices requests with priority may get in a row while others wait."""

SHORT_BYTES_MAX: Final = 2_048


def is_short(body: bytes) -> bool:
    """Tell whether reading a body takes no longer than about one credit, so that it needs no time slices."""
    return len(body) <= SHORT_BYTES_MAX


class SliceScheduler:
    """Gives one large request a time slice in each turn of the event loop.

    Requests of a negative rank have priority, but not always: one captured request, sent without end, would
    starve all others.
    """

    def __init__(self) -> None:
        """Start with no request waiting."""
        self._priority: Final[deque[asyncio.Future[None]]] = deque()
        self._others: Final[list[tuple[int, int, asyncio.Future[None]]]] = []
        """A heap by rank, then by arrival."""

        self._arrivals: Final = count()
        self._priority_in_a_row = 0

    async def next(self, rank: int = 0) -> None:
        """Return when the caller has a slice. The lowest rank is served first, then the longest wait."""
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[None] = loop.create_future()
        if not (self._priority or self._others):
            loop.call_soon(self._grant)
        if rank < 0:
            self._priority.append(granted)
        else:
            heappush(self._others, (rank, next(self._arrivals), granted))
        await granted

    def _grant(self) -> None:
        """Grant one slice, and schedule the next grant for the next turn of the loop."""
        if self._priority and (self._priority_in_a_row < PRIORITY_IN_A_ROW_MAX or not self._others):
            granted = self._priority.popleft()
            self._priority_in_a_row += 1
        else:
            _, _, granted = heappop(self._others)
            self._priority_in_a_row = 0
        if not granted.done():  # else the request was cancelled while it waited
            granted.set_result(None)
        if self._priority or self._others:
            asyncio.get_running_loop().call_soon(self._grant)


class TimeSlices:
    """The time slices of one large request.

    A request whose signature was good has priority. Among the others, the one that has had the fewest slices is
    first. A sender whose earlier request had a good signature has priority for the first slice.
    """

    def __init__(self, scheduler: SliceScheduler, *, is_sender_trusted: bool = False) -> None:
        """Take the scheduler, and whether an earlier request of the sender had a good signature."""
        self._scheduler: Final = scheduler
        self._is_sender_trusted: Final = is_sender_trusted
        self._ends_at = 0.0
        self._had = 0
        self.is_signed = False

    async def pause_if_due(self) -> None:
        """Wait for the next slice, unless the present one is not over."""
        if perf_counter() >= self._ends_at:
            has_priority = self.is_signed or (self._is_sender_trusted and not self._had)
            await self._scheduler.next(-1 if has_priority else self._had)
            self._had += 1
            self._ends_at = perf_counter() + SLICE_SECONDS
