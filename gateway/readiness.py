"""Whether the ledgers of a gateway's cells answer: a real question to each, by the way that a win goes.

A gateway of several cells is ready while any of them answers. Were it not, the outage of one would take the
gateway out of its load balancer for all the others.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from gateway.ledger_client.contract import LedgerClient
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome
from shared.wire import FindPlayer

READY_SECONDS_MAX: Final = 1.0
"""How long the ledger may take to answer a gateway that is ready."""

OTHERS_SECONDS_MAX: Final = 0.25
"""How long other cells are waited for once one has answered: orchestrators give a probe a second."""

PROBE: Final = FindPlayer("")
"""A real question that nobody is the answer to: the whole way to the books and back is tried."""

Obstacles = Mapping[str, str | None]
"""By cell: why no win can be paid there, or None where the ledger answers."""


class Readiness:
    """Asks the ledgers."""

    def __init__(self, ledgers: Mapping[str, LedgerClient]) -> None:
        """Take the ledger of each cell."""
        self._ledgers: Final = ledgers
        self._probes: Final[dict[str, asyncio.Task[str | None]]] = {}
        """The latest of each cell: while one is under way, there is no second."""

    async def look(self) -> Obstacles:
        """Return what is in the way of each cell."""
        for name, ledger in self._ledgers.items():
            if name not in self._probes or self._probes[name].done():
                self._probes[name] = asyncio.create_task(_find_obstacle(ledger))
        probes = dict(self._probes)
        pending = set(probes.values())
        is_any_ready = False
        while pending and not is_any_ready:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            is_any_ready = any(probe.result() is None for probe in done)
        if pending:
            await asyncio.wait(pending, timeout=OTHERS_SECONDS_MAX)
        return {
            name: probe.result() if probe.done() else "no answer in time" for name, probe in probes.items()
        }


async def _find_obstacle(ledger: LedgerClient) -> str | None:
    """Return why no win can be paid, or None where the ledger answers."""
    deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
    try:
        answer = await ledger.ask_first(PROBE, deadline)
    except LedgerUnavailable as error:
        return str(error)
    return answer.result.value if isinstance(answer, Outcome) else None
