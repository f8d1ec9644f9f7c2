"""Health, readiness and metrics of a gateway, for operators, on a port of its own.

On the callbacks' port anyone who can send a callback could poll these, and so take most of the time from the wins.
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
from gateway.load_shedding import ShedLog
from gateway.metrics import GatewayMetrics
from shared.cached_call import READINESS_TTL_SECONDS, CachedCall
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome
from shared.queries import FindPlayer
from shared.readiness import Readiness, states_of

READY_SECONDS_MAX: Final = 1.0
"""How long the ledger of a ready gateway may take to answer the probe."""

METRICS_STAND_SECONDS: Final = 0.1
"""How long an exposition is sent to all clients before it is made anew."""

PROBE: Final = FindPlayer("")
"""A query for a player that can't exist: it goes all the way to the database and back."""

REQUESTS_PER_SECOND: Final = 500
"""Requests beyond this rate wait, since the processor's time is for the wins."""

WAIT_SECONDS_MAX: Final = 0.5
"""How long a request waits at most: orchestrators give a probe one second."""


class RateLimit:
    """Delays requests so that they keep to REQUESTS_PER_SECOND, but none for longer than WAIT_SECONDS_MAX."""

    def __init__(self) -> None:
        """Start with no request to wait for."""
        self._next_at = 0.0

    async def wait(self) -> None:
        """Return when the caller may go on."""
        now = asyncio.get_running_loop().time()
        starts_at = min(max(now, self._next_at), now + WAIT_SECONDS_MAX)
        self._next_at = starts_at + 1 / REQUESTS_PER_SECOND
        if starts_at > now:
            await asyncio.sleep(starts_at - now)


class MonitoringApp(Router):
    """The application on the operations port: /healthz, /readyz and /metrics."""

    def __init__(self, ledgers: Mapping[str, LedgerClient], metrics: GatewayMetrics, shed_log: ShedLog) -> None:
        """Take each cell's ledger client, the metrics, and the log whose sums are exported to them first."""
        # A redirect would lead to the host that the request's Host header names.
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
        self._shed_log: Final = shed_log
        self._obstacles: Final = CachedCall(readiness.check, READINESS_TTL_SECONDS)
        self._expositions: Final = CachedCall(self._expose, METRICS_STAND_SECONDS)
        self._rate_limit: Final = RateLimit()
        self._is_stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, within the rate limit."""
        await self._rate_limit.wait()
        await super().__call__(scope, receive, send)

    @property
    def registry(self) -> CollectorRegistry:
        """The registry of the gateway's metrics."""
        return self._metrics.registry

    def stop(self) -> None:
        """Report not ready from now on: the gateway accepts no new connections, and answers what is under way."""
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
        return Response(await self._expositions.get(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _expose(self) -> bytes:
        self._shed_log.export()
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
