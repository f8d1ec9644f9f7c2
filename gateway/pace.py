"""Long work in short turns, so that large requests hold up no other, however many they are."""

import asyncio
from collections import deque
from heapq import heappop, heappush
from itertools import count
from time import perf_counter
from typing import Final

TURN_SECONDS: Final = 0.0003
"""How long large requests, all together, may work before others get their turn: a few items of one."""

FIRST_IN_A_ROW_MAX: Final = 4
"""So many turns go to those who go first while others wait; then one of the others has one."""

SHORT_BYTES_MAX: Final = 2_048


def is_short(body: bytes) -> bool:
    """Tell whether a body is read at once in about the time of one credit."""
    return len(body) <= SHORT_BYTES_MAX


class Turns:
    """The queue of all large requests: each time the event loop comes round, one of them has a turn.

    Those of a rank below 0 go first, but not always: one captured request, sent without end, would keep all
    others waiting for as long.
    """

    def __init__(self) -> None:
        """Begin with nobody."""
        self._first: Final[deque[asyncio.Future[None]]] = deque()
        self._others: Final[list[tuple[int, int, asyncio.Future[None]]]] = []
        self._numbers: Final = count()
        self._went_first = 0
        """How many, since another had a turn."""

    async def next(self, rank: int = 0) -> None:
        """Return when it is the caller's turn: the lowest rank goes first, then who has waited longest."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if not (self._first or self._others):
            loop.call_soon(self._give)
        if rank < 0:
            self._first.append(turn)
        else:
            heappush(self._others, (rank, next(self._numbers), turn))
        await turn

    def _give(self) -> None:
        """Let the first go on when the loop has come round, and look after the next one then."""
        if self._first and (self._went_first < FIRST_IN_A_ROW_MAX or not self._others):
            turn = self._first.popleft()
            self._went_first += 1
        else:
            _, _, turn = heappop(self._others)
            self._went_first = 0
        if not turn.done():  # nobody waits any more where it is
            turn.set_result(None)
        if self._first or self._others:
            asyncio.get_running_loop().call_soon(self._give)


class Pace:
    """One large request's turns on the event loop.

    Who has shown a good signature goes before those who have not, and of these who has had fewer turns. A
    sender that has shown one before has its first turn so.
    """

    def __init__(self, turns: Turns, *, is_sender_trusted: bool = False) -> None:
        """Take the queue for a turn, and whether an earlier request of the sender was honest."""
        self._turns: Final = turns
        self._begins_first: Final = is_sender_trusted
        self._ends = 0.0
        self._had = 0
        self.is_signed = False

    async def rest(self) -> None:
        """Wait for the next turn, unless one has begun that is not over."""
        if perf_counter() >= self._ends:
            goes_first = self.is_signed or (self._begins_first and not self._had)
            await self._turns.next(-1 if goes_first else self._had)
            self._had += 1
            self._ends = perf_counter() + TURN_SECONDS
