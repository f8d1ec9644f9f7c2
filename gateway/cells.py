"""The cells that one gateway serves: each has a ledger client of its own, so no cell is held up by another.

A client has its own connection, concurrency limit and readiness. With one cell there is one client, and everything
is as it would be without cells.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.ledger_client import create_ledger_client
from gateway.ledger_client.client import LedgerClient
from shared.cells import Part, cell_of, naming_cell, settings_of
from shared.errors import CreditsError, LedgerUnavailable, SettingsError
from shared.settings import MEMORY, Settings

START_SECONDS_MAX: Final = 1.0
"""How long the start of a gateway of several cells waits for one of them: its broker may be frozen."""

START_RETRY_SECONDS: Final = 5.0
"""How long after a late refusal a cell is started again: a broker that was frozen may not have its accounts yet."""

_log = structlog.get_logger()


def create_clients(settings: Settings, ledger: LedgerClient | None) -> dict[str, LedgerClient]:
    """Return a client for each cell that has integrations; `ledger`, if given, is the client of every cell.

    Raises SettingsError.
    """
    cells = dict.fromkeys(cell_of(settings, name) for name in settings.integrations)
    return {cell: ledger or _create_client(settings, cell) for cell in cells}


def _create_client(settings: Settings, cell: str) -> LedgerClient:
    of_cell = settings_of(settings, cell, Part.BROKER)
    if of_cell.broker.url == MEMORY:
        of_cell = settings_of(settings, cell, *Part)
    with naming_cell(cell):
        return create_ledger_client(of_cell)


@asynccontextmanager
async def running(clients: Mapping[str, LedgerClient]) -> AsyncIterator[None]:
    """Start the clients side by side, and stop them after the block. Raises SettingsError when a broker refuses us.

    When there are several, one that takes longer than START_SECONDS_MAX goes on starting while the others serve.
    """
    is_serving = asyncio.Event()
    starts = {
        name: asyncio.create_task(_start(name, client, is_serving, are_several=len(clients) > 1))
        for name, client in clients.items()
    }
    async with AsyncExitStack() as stack:
        for name, start in starts.items():
            stack.push_async_callback(_stop, start, clients[name])
        await asyncio.wait(starts.values(), timeout=START_SECONDS_MAX if len(starts) > 1 else None)
        is_serving.set()
        for name, start in starts.items():
            if start.done():
                start.result()
            else:
                _log.warning("cell starts late", cell=name)
        yield


@contextmanager
def _naming(cell: str, *, are_several: bool) -> Iterator[None]:
    """Add the cell to the message of an error, when there are several and the message names no settings table."""
    try:
        with naming_cell(cell):
            yield
    except (SettingsError, LedgerUnavailable) as error:
        if not are_several or str(error).startswith("["):
            raise
        raise type(error)(f"cell {cell}: {error}") from error


async def _start(name: str, client: LedgerClient, is_serving: asyncio.Event, *, are_several: bool) -> None:
    """Start a client. Once the gateway serves, a refusal is logged and the start is tried again."""
    logged_reason = ""
    while True:
        try:
            with _naming(name, are_several=are_several):
                await client.__aenter__()
        except Exception as error:
            if not is_serving.is_set():
                raise
            reason = str(error) if isinstance(error, CreditsError) else type(error).__name__
            if reason != logged_reason:
                _log.error("cell is not served", cell=name, reason=reason, again_seconds=START_RETRY_SECONDS)
            logged_reason = reason
            await asyncio.sleep(START_RETRY_SECONDS)
        else:
            return


async def _stop(start: asyncio.Task[None], client: LedgerClient) -> None:
    start.cancel()
    await asyncio.wait([start])
    if not start.cancelled() and start.exception() is None:
        await client.__aexit__(None, None, None)


def register_client_metrics(registry: CollectorRegistry, clients: Mapping[str, LedgerClient]) -> None:
    """Register the clients' own metrics; when there are several clients, with the cell as a further label."""
    if len(clients) == 1:
        for client in clients.values():
            for collector in client.counters:
                registry.register(collector)
        return
    registry.register(_CellCounters(clients))
    in_flight = Gauge(
        "credits_gateway_cell_in_flight",
        "Questions that wait for the ledger of a cell",
        ["cell"],
        registry=registry,
    )
    for name, client in clients.items():
        in_flight.labels(name).set_function(partial(_in_flight, client))


def _in_flight(client: LedgerClient) -> int:
    return client.limit.in_flight


class _CellCounters(Collector):
    """Collects the clients' metrics: one of each name, with the cell as a further label."""

    def __init__(self, clients: Mapping[str, LedgerClient]) -> None:
        self._clients: Final = clients

    def collect(self) -> Iterable[Metric]:
        """Return the metrics as of now."""
        families: dict[str, Metric] = {}
        for cell, client in self._clients.items():
            for metric in (metric for collector in client.counters for metric in collector.collect()):
                family = families.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    family.add_sample(sample.name, {**sample.labels, "cell": cell}, sample.value)
        return families.values()
