"""The composition root of the gateway: settings in, a Starlette router out."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import Lifespan, Receive, Scope, Send

from gateway.callback import Integration
from gateway.door import CallbackDoor
from gateway.endpoint import CallbackEndpoint
from gateway.holders import Holders
from gateway.ledger_client import create_ledger_client
from gateway.ledger_client.contract import LedgerClient
from gateway.metrics import GatewayMetrics
from gateway.providers import build
from gateway.turned_away import TurnedAway
from shared.errors import LedgerUnavailable, SettingsError
from shared.money import Currencies
from shared.outcome import Outcome
from shared.settings import Settings
from shared.wire import FindPlayer

READY_SECONDS_MAX: Final = 1.0

_log = structlog.get_logger()


def create_app(settings: Settings, ledger: LedgerClient | None = None) -> "CallbackRouter":
    """Return the gateway; `ledger` stands in for the client that the settings name.

    The application's lifespan starts and stops the client. Raises SettingsError with one clear line when an
    integration is set up wrongly.
    """
    client = ledger or create_ledger_client(settings)
    metrics = GatewayMetrics(lambda: client.in_flight)
    turned_away = TurnedAway(metrics)

    @asynccontextmanager
    async def lifespan(_app: Router) -> AsyncIterator[None]:
        async with client:
            yield
        turned_away.say()

    callbacks = _callbacks(settings, client, metrics, turned_away)
    return CallbackRouter(client, callbacks, _operations(client, metrics, turned_away), lifespan, metrics)


class CallbackRouter(Router):
    """Starlette's router, which tries pattern after pattern, behind a look at the paths of the callbacks."""

    def __init__(
        self,
        ledger: LedgerClient,
        callbacks: Mapping[str, CallbackEndpoint],
        others: Sequence[Route],
        lifespan: Lifespan[Any],
        metrics: GatewayMetrics,
    ) -> None:
        """Take whom the callbacks ask, what answers each, by path, all other routes, and what counts."""
        super().__init__(
            [*(Route(path, each) for path, each in callbacks.items()), *others], lifespan=lifespan
        )
        self._callbacks: Final = callbacks
        self.door: Final = CallbackDoor(ledger, callbacks)
        self._metrics: Final = metrics

    def count_refusal(self, reason: str) -> None:
        """Count a connection that was refused or closed before a request of it came here."""
        self._metrics.connections_refused(reason).inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._callbacks.get(scope.get("path", ""), super().__call__)(scope, receive, send)


def _callbacks(
    settings: Settings, client: LedgerClient, metrics: GatewayMetrics, turned_away: TurnedAway
) -> dict[str, CallbackEndpoint]:
    if not settings.integrations:
        raise SettingsError("[integrations]: there are none, so there is nothing to answer")
    currencies, holders = Currencies(settings.currencies), Holders(client)
    endpoints = {}
    for name, table in settings.integrations.items():
        provider = build(name, table, currencies)
        if (notice := provider.notice()) is not None:
            _log.warning("notice", integration=name, about=notice)
        integration = Integration(provider, client, holders, metrics, turned_away)
        for path in provider.paths:
            body_bytes_max = provider.body_bytes_max(path, settings.gateway.body_bytes_max)
            endpoints[f"/{name}/{path}"] = CallbackEndpoint(integration, path, body_bytes_max)
    return endpoints


def _operations(client: LedgerClient, metrics: GatewayMetrics, turned_away: TurnedAway) -> list[Route]:
    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "up"})

    async def readyz(_request: Request) -> Response:
        reason = await _why_not_ready(client)
        if reason is None:
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "unavailable", "reason": reason}, status_code=503)

    async def exposition(_request: Request) -> Response:
        turned_away.count()
        return Response(generate_latest(metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", exposition)]


async def _why_not_ready(client: LedgerClient) -> str | None:
    """Ask the ledger a real question, for a player that can't exist: the whole way and back is tried."""
    try:
        answer = await client.ask(FindPlayer(""), asyncio.get_running_loop().time() + READY_SECONDS_MAX)
    except LedgerUnavailable as error:
        return str(error)
    return answer.result.value if isinstance(answer, Outcome) else None
