"""Checks whether the ledgers of a process's cells answer.

A process with several cells is ready while any of their ledgers answers. Otherwise the outage of one cell would
take the process out of its load balancer for all the others.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

OTHERS_SECONDS_MAX: Final = 0.25
"""How long to wait for the other cells once one has answered: orchestrators give a probe one second."""

Probe = Callable[[], Coroutine[Any, Any, str | None]]
"""Returns why a cell's ledger is not ready, or None if it is."""

Obstacles = Mapping[str, str | None]
"""The result of each cell's probe, by the cell's name."""


class Readiness:
    """Probes the ledgers of all cells concurrently."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        """Take each cell's probe."""
        self._probes: Final = probes
        self._running: Final[dict[str, asyncio.Task[str | None]]] = {}
        """The latest probe of each cell; a new one starts only when it has ended."""

    async def check(self) -> Obstacles:
        """Return each cell's obstacle, or None for a cell that is ready."""
        for name, probe in self._probes.items():
            if name not in self._running or self._running[name].done():
                self._running[name] = asyncio.create_task(probe())
        running = dict(self._running)
        pending = set(running.values())
        is_any_ready = False
        while pending and not is_any_ready:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            is_any_ready = any(task.result() is None for task in done)
        if pending:
            await asyncio.wait(pending, timeout=OTHERS_SECONDS_MAX)
        return {name: task.result() if task.done() else "no answer in time" for name, task in running.items()}

    def stop(self) -> None:
        """Cancel the running probes."""
        for task in self._running.values():
            task.cancel()


def states_of(obstacles: Obstacles) -> dict[str, str] | None:
    """Return the state of each cell as text, or None if there is only one cell, whose state is the process's."""
    if len(obstacles) == 1:
        return None
    return {name: obstacle or "ready" for name, obstacle in obstacles.items()}
