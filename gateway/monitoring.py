"""What those who run a gateway ask it, on a port of its own: is it up, is it ready, what has it counted.

On the callbacks' port whoever can send a callback could ask, and 450 who did so turned nine wins in ten away.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from gateway.ledger_client.client import LedgerClient
from gateway.metrics import GatewayMetrics
from gateway.shed_requests import ShedLog
from shared.cached_call import READINESS_TTL_SECONDS, CachedCall
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome
from shared.queries import FindPlayer
from shared.readiness import Readiness, states_of

READY_SECONDS_MAX: Final = 1.0
"""How long the ledger may take to answer a gateway that is ready."""

METRICS_STAND_SECONDS: Final = 0.1
"""How long the exposition stands for all who ask, so that it is not made more often."""

PROBE: Final = FindPlayer("")
"""A real question that nobody is the answer to: the whole way to the books and back is tried."""

REQUESTS_PER_SECOND: Final = 500
"""So many are answered at once; beyond, each waits for its turn, since it is wins that the time is for."""

WAIT_SECONDS_MAX: Final = 0.5
"""How long one may have to wait for its turn: orchestrators give a probe a second."""


class Pace:
    """The turns of those who ask: at a bounded rate, but for a bounded wait."""

    def __init__(self) -> None:
        """Begin with nobody before the first."""
        self._next_turn = 0.0

    async def wait(self) -> None:
        """Return when it is one's turn."""
        now = asyncio.get_running_loop().time()
        turn = min(max(now, self._next_turn), now + WAIT_SECONDS_MAX)
        self._next_turn = turn + 1 / REQUESTS_PER_SECOND
        if turn > now:
            await asyncio.sleep(turn - now)


class MonitoringApp(Router):
    """The application on the operations port."""

    def __init__(self, ledgers: Mapping[str, LedgerClient], metrics: GatewayMetrics, turned_away: ShedLog) -> None:
        """Take the ledger to ask of each cell, what is counted, and what is still to be counted."""
        # A redirect would lead to wherever the request's Host header says.
        super().__init__(
            [
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", self._exposition),
            ],
            redirect_slashes=False,
        )
        readiness = Readiness({name: partial(_find_obstacle, each) for name, each in ledgers.items()})
        self._metrics: Final = metrics
        self._turned_away: Final = turned_away
        self._obstacles: Final = CachedCall(readiness.check, READINESS_TTL_SECONDS)
        self._exposed: Final = CachedCall(self._expose, METRICS_STAND_SECONDS)
        self._pace: Final = Pace()
        self._is_stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, in its turn."""
        await self._pace.wait()
        await super().__call__(scope, receive, send)

    @property
    def registry(self) -> CollectorRegistry:
        """What is counted."""
        return self._metrics.registry

    def stop(self) -> None:
        """Be ready no more: the gateway takes no new connections, and answers what is under way."""
        self._is_stopping = True

    async def _healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "up"})

    async def _readyz(self, _request: Request) -> Response:
        if self._is_stopping:
            return _unavailable("the gateway is stopping")
        obstacles = await self._obstacles.get()
        states = states_of(obstacles)
        cells = {} if states is None else {"cells": states}
        if None in obstacles.values():
            return JSONResponse({"status": "ready", **cells})
        return _unavailable(next(iter(obstacles.values())) or "", cells)

    async def _exposition(self, _request: Request) -> Response:
        return Response(await self._exposed.get(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _expose(self) -> bytes:
        self._turned_away.count()
        return generate_latest(self.registry)


def _unavailable(reason: str, cells: Mapping[str, Mapping[str, str]] | None = None) -> Response:
    return JSONResponse({"status": "unavailable", "reason": reason, **(cells or {})}, status_code=503)


async def _find_obstacle(ledger: LedgerClient) -> str | None:
    """Return why no win can be paid, or None where the ledger answers."""
    deadline = asyncio.get_running_loop().time() + READY_SECONDS_MAX
    try:
        answer = await ledger.call_first(PROBE, deadline)
    except LedgerUnavailable as error:
        return str(error)
    return answer.code.value if isinstance(answer, Outcome) else None
