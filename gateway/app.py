"""The composition root of the gateway: settings in, two applications out: the callbacks', and operations."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import structlog
from starlette.routing import Router
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from gateway.addresses import AddressRule
from gateway.callback import CallbackHandler
from gateway.cells import CellLoadShedder, count_cells, create_clients, started
from gateway.endpoint import CallbackEndpoint
from gateway.ledger_client.client import LedgerClient
from gateway.load_shedding import LoadShedder
from gateway.metrics import GatewayMetrics
from gateway.monitoring import MonitoringApp
from gateway.not_found import NotFound
from gateway.pace import Turns
from gateway.players import PlayerCache
from gateway.providers.base import Provider
from gateway.providers.registry import build_all
from gateway.rejections import RejectionLog
from gateway.shed_requests import ShedLog
from shared.errors import SettingsError
from shared.http import Interceptor
from shared.money import Currencies
from shared.settings import Settings

_log = structlog.get_logger()


class _Cell(NamedTuple):
    """What the callbacks of one cell work with."""

    client: LedgerClient
    holders: PlayerCache


class _Tools(NamedTuple):
    """What all callbacks work with."""

    cells: Mapping[str, _Cell]
    metrics: GatewayMetrics
    turned_away: ShedLog
    rejections: RejectionLog
    turns: Turns


def create_app(settings: Settings, ledger: LedgerClient | None = None) -> "CallbackRouter":
    """Return the gateway; `ledger` stands in for the clients that the settings name.

    The application's lifespan starts and stops the clients; its `operations` are an application of their own.
    Raises SettingsError with one clear line when an integration is set up wrongly.
    """
    clients = create_clients(settings, ledger)
    metrics = GatewayMetrics(lambda: sum(client.in_flight for client in clients.values()))
    providers = _providers(settings)
    count_cells(metrics.registry, clients)
    turned_away, rejections = ShedLog(metrics), RejectionLog(metrics)
    cells = {name: _Cell(client, PlayerCache(client)) for name, client in clients.items()}
    tools = _Tools(cells, metrics, turned_away, rejections, Turns())

    @asynccontextmanager
    async def lifespan(_app: Router) -> AsyncIterator[None]:
        async with started(clients):
            yield
        turned_away.flush()
        rejections.flush()

    by_cell: dict[str, dict[str, CallbackEndpoint]] = {name: {} for name in clients}
    for provider in providers:
        by_cell[_cell_of(provider, tools)] |= _endpoints(provider, settings, tools)
    callbacks = {path: endpoint for own in by_cell.values() for path, endpoint in own.items()}
    doors = [_door(clients[name], own) for name, own in by_cell.items()]
    door = doors[0] if len(doors) == 1 else CellLoadShedder(doors)
    operations = MonitoringApp(clients, metrics, turned_away)
    not_found = NotFound(providers, rejections)
    return CallbackRouter(door, callbacks, not_found, operations, lifespan, metrics)


def _cell_of(provider: Provider[Any, Any], tools: _Tools) -> str:
    """Return the cell of an integration, which may be the only one."""
    return provider.settings.cell if len(tools.cells) > 1 else next(iter(tools.cells))


def _door(ledger: LedgerClient, callbacks: Mapping[str, CallbackEndpoint]) -> LoadShedder:
    # Under overload, who is heard from some addresses only goes the usual way, where the address is seen.
    heard_from_anywhere = {path: each for path, each in callbacks.items() if each.hears_everyone}
    return LoadShedder(ledger, heard_from_anywhere)


class CallbackRouter(Router):
    """A router by the path as it was sent: Starlette's own patterns match what is percent-encoded, too."""

    def __init__(  # noqa: PLR0913, PLR0917  (what it leads to)
        self,
        door: Interceptor,
        callbacks: Mapping[str, CallbackEndpoint],
        not_found: ASGIApp,
        operations: MonitoringApp,
        lifespan: Lifespan[Any],
        metrics: GatewayMetrics,
    ) -> None:
        """Take what sheds overload, what answers each path, what the rest, operations, and what counts."""
        super().__init__(lifespan=lifespan)
        self._callbacks: Final = {path.encode(): endpoint for path, endpoint in callbacks.items()}
        self._not_found: Final = not_found
        self.operations: Final = operations
        self.door: Final = door
        self._metrics: Final = metrics

    def count_refusal(self, reason: str) -> None:
        """Count a connection that was refused or closed before a request of it came here."""
        self._metrics.connections_refused(reason).inc()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._callbacks.get(scope["raw_path"], self._not_found)(scope, receive, send)


def _providers(settings: Settings) -> Sequence[Provider[Any, Any]]:
    if not settings.integrations:
        raise SettingsError("[integrations]: there are none, so there is nothing to answer; is CREDITS_CONFIG set?")
    providers = build_all(settings.integrations, Currencies(settings.currencies))
    for provider in providers:
        if (notice := provider.startup_warning()) is not None:
            _log.warning("notice", integration=provider.name, about=notice)
    return providers


def _endpoints(provider: Provider[Any, Any], settings: Settings, tools: _Tools) -> Mapping[str, CallbackEndpoint]:
    cell = tools.cells[_cell_of(provider, tools)]
    integration = CallbackHandler(provider, cell.client, cell.holders, tools.metrics, tools.turned_away, tools.turns)
    allowed, bytes_max = provider.settings.allowed_addresses, settings.gateway.body_bytes_max
    rule = AddressRule(allowed, settings.gateway.trusted_proxies) if allowed else None
    return {
        f"/{provider.name}/{path}": CallbackEndpoint(
            integration, path, provider.body_bytes_max(path, bytes_max), tools.rejections, rule
        )
        for path in provider.paths
    }
