"""Whether the ledgers of a process's cells answer.

A process of several cells is ready while any of them answers. Were it not, the outage of one would take the
process out of its load balancer for all the others.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

OTHERS_SECONDS_MAX: Final = 0.25
"""How long other cells are waited for once one has answered: orchestrators give a probe a second."""

Probe = Callable[[], Coroutine[Any, Any, str | None]]
"""Returns what is in the way, or None where the ledger answers."""

Obstacles = Mapping[str, str | None]
"""By cell, what its probe found."""


class Readiness:
    """Asks the ledgers of all cells at once."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        """Take what asks the ledger of each cell."""
        self._probes: Final = probes
        self._under_way: Final[dict[str, asyncio.Task[str | None]]] = {}
        """The latest of each cell: while one is under way, there is no second."""

    async def look(self) -> Obstacles:
        """Return what is in the way of each cell."""
        for name, probe in self._probes.items():
            if name not in self._under_way or self._under_way[name].done():
                self._under_way[name] = asyncio.create_task(probe())
        asked = dict(self._under_way)
        pending = set(asked.values())
        is_any_ready = False
        while pending and not is_any_ready:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            is_any_ready = any(task.result() is None for task in done)
        if pending:
            await asyncio.wait(pending, timeout=OTHERS_SECONDS_MAX)
        return {name: task.result() if task.done() else "no answer in time" for name, task in asked.items()}

    def stop(self) -> None:
        """Ask no more."""
        for task in self._under_way.values():
            task.cancel()


def states_of(obstacles: Obstacles) -> dict[str, str] | None:
    """Return the state of each of several cells in words; None of the only one, which is the process's."""
    if len(obstacles) == 1:
        return None
    return {name: obstacle or "ready" for name, obstacle in obstacles.items()}
