"""The composition root of the gateway: from the settings to two applications, for callbacks and for operations."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import structlog
from starlette.routing import Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from gateway.addresses import AddressRule
from gateway.callback import CallbackHandler
from gateway.cells import create_clients, register_client_metrics, running
from gateway.endpoint import CallbackEndpoint
from gateway.ledger_client.client import LedgerClient
from gateway.load_shedding import Admission, LoadShedder, SheddableRoute, ShedLog
from gateway.metrics import GatewayMetrics
from gateway.monitoring import MonitoringApp
from gateway.not_found import NotFound
from gateway.players import PlayerCache
from gateway.providers.base import Provider
from gateway.providers.registry import build_all
from gateway.rejections import RejectionLog
from gateway.time_slices import SliceScheduler
from shared.errors import SettingsError
from shared.http import Interceptor
from shared.money import Currencies
from shared.settings import Settings

_log = structlog.get_logger()


class _Cell(NamedTuple):
    """The objects that the integrations of one cell share."""

    client: LedgerClient
    players: PlayerCache
    admission: Admission


class _Services(NamedTuple):
    """The objects that all integrations share."""

    cells: Mapping[str, _Cell]
    metrics: GatewayMetrics
    shed_log: ShedLog
    rejections: RejectionLog
    scheduler: SliceScheduler


class _Route(NamedTuple):
    """One path: its endpoint, and its route in the load shedder unless a client's address must be checked first."""

    path: str
    endpoint: CallbackEndpoint
    sheddable: SheddableRoute | None


def create_app(settings: Settings, ledger: LedgerClient | None = None) -> "CallbackRouter":
    """Return the gateway; `ledger`, if given, replaces the clients that the settings name.

    The application's lifespan starts and stops the clients; its `operations` are an application of their own.
    Raises SettingsError with one clear line when an integration is set up wrongly.
    """
    clients = create_clients(settings, ledger)
    metrics = GatewayMetrics(lambda: sum(client.limit.in_flight for client in clients.values()))
    providers = _providers(settings)
    register_client_metrics(metrics.registry, clients)
    cells = {name: _Cell(client, PlayerCache(client), Admission(client.limit)) for name, client in clients.items()}
    services = _Services(cells, metrics, ShedLog(metrics), RejectionLog(metrics), SliceScheduler())

    @asynccontextmanager
    async def lifespan(_app: Router) -> AsyncIterator[None]:
        async with running(clients):
            yield
        services.shed_log.flush()
        services.rejections.flush()

    routes = [route for provider in providers for route in _routes(provider, settings, services)]
    return CallbackRouter(
        LoadShedder({route.path: route.sheddable for route in routes if route.sheddable is not None}),
        {route.path: route.endpoint for route in routes},
        NotFound(providers, services.rejections),
        MonitoringApp(clients, metrics, services.shed_log),
        lifespan,
        metrics,
    )


class CallbackRouter(Router):
    """Routes by the path as it was sent; Starlette's own patterns would also match percent-encoded forms of it."""

    def __init__(  # noqa: PLR0913, PLR0917  (the parts that it connects)
        self,
        load_shedder: Interceptor,
        callbacks: Mapping[str, CallbackEndpoint],
        not_found: ASGIApp,
        operations: MonitoringApp,
        lifespan: Lifespan[Any],
        metrics: GatewayMetrics,
    ) -> None:
        """Take the load shedder, the endpoints by path, the applications for all else and for operations."""
        super().__init__(lifespan=lifespan)
        self._callbacks: Final = {path.encode(): endpoint for path, endpoint in callbacks.items()}
        self._not_found: Final = not_found
        self.operations: Final = operations
        self.load_shedder: Final = load_shedder
        self._metrics: Final = metrics

    def count_refusal(self, reason: str) -> None:
        """Count a connection that was refused, or closed before it had sent a whole request."""
        self._metrics.connections_refused(reason).inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._callbacks.get(scope["raw_path"], self._not_found)(scope, receive, send)


def _providers(settings: Settings) -> Sequence[Provider[Any, Any]]:
    if not settings.integrations:
        raise SettingsError("[integrations]: there are none, so there is nothing to answer; is CREDITS_CONFIG set?")
    providers = build_all(settings.integrations, Currencies(settings.currencies))
    for provider in providers:
        if (warning := provider.startup_warning()) is not None:
            _log.warning("notice", integration=provider.name, about=warning)
    return providers


def _routes(provider: Provider[Any, Any], settings: Settings, services: _Services) -> Iterator[_Route]:
    cell = _cell_of(provider, services.cells)
    handler = CallbackHandler(
        provider, cell.client, cell.players, services.metrics, services.shed_log, services.scheduler
    )
    allowed = provider.settings.allowed_addresses
    rule = AddressRule(allowed, settings.gateway.trusted_proxies) if allowed else None
    for path in provider.paths:
        bytes_max = provider.body_bytes_max(path, settings.gateway.body_bytes_max)
        endpoint = CallbackEndpoint(handler, path, bytes_max, services.rejections, rule)
        sheddable = SheddableRoute(provider, path, bytes_max, cell.admission, services.shed_log, handler.reject)
        yield _Route(f"/{provider.name}/{path}", endpoint, sheddable if rule is None else None)


def _cell_of(provider: Provider[Any, Any], cells: Mapping[str, _Cell]) -> _Cell:
    """Return the cell of an integration: the only one, where there are no others."""
    return cells[provider.settings.cell] if len(cells) > 1 else next(iter(cells.values()))
