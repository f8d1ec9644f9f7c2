"""The cells that one gateway serves: a ledger client for each, so that none waits for what another lacks.

A client has its own connection, places and readiness. With one cell there is one client, and all is as it
would be without cells.
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
from gateway.load_shedding import LoadShedder
from shared.cells import Part, cell_of, naming_cell, settings_of
from shared.errors import CreditsError, LedgerUnavailable, SettingsError
from shared.http import Interceptor, Request
from shared.settings import MEMORY, Settings

START_SECONDS_MAX: Final = 1.0
"""How long the start of a gateway of several cells waits for one: its broker may be frozen."""

START_AGAIN_SECONDS: Final = 5.0
"""After this a cell that was refused late is started again: a broker that was frozen may not know yet whom it
lets in."""

_log = structlog.get_logger()


def create_clients(settings: Settings, ledger: LedgerClient | None) -> dict[str, LedgerClient]:
    """Return a client for each cell that has integrations; `ledger` stands in for all.

    Raises SettingsError.
    """
    cells = dict.fromkeys(cell_of(settings, name) for name in settings.integrations)
    return {cell: ledger or _create_client(settings, cell) for cell in cells}


def _create_client(settings: Settings, cell: str) -> LedgerClient:
    own = settings_of(settings, cell, Part.BROKER)
    if own.broker.url == MEMORY:
        own = settings_of(settings, cell, *Part)
    with naming_cell(cell):
        return create_ledger_client(own)


@asynccontextmanager
async def started(clients: Mapping[str, LedgerClient]) -> AsyncIterator[None]:
    """Start the clients side by side, and stop them in the end. Raises SettingsError for what refuses us.

    Of several, one that takes longer than START_SECONDS_MAX goes on starting, while the others serve.
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
    """Have a fault say of which of several cells it is, where it names none of the settings' tables."""
    try:
        with naming_cell(cell):
            yield
    except (SettingsError, LedgerUnavailable) as error:
        if not are_several or str(error).startswith("["):
            raise
        raise type(error)(f"cell {cell}: {error}") from error


async def _start(name: str, client: LedgerClient, is_serving: asyncio.Event, *, are_several: bool) -> None:
    """Start a client. While the others serve, what refuses it is no reason to end, nor to give it up."""
    told = ""
    while True:
        try:
            with _naming(name, are_several=are_several):
                await client.__aenter__()
        except Exception as error:
            if not is_serving.is_set():
                raise
            reason = str(error) if isinstance(error, CreditsError) else type(error).__name__
            if reason != told:
                _log.error("cell is not served", cell=name, reason=reason, again_seconds=START_AGAIN_SECONDS)
            told = reason
            await asyncio.sleep(START_AGAIN_SECONDS)
        else:
            return


async def _stop(start: asyncio.Task[None], client: LedgerClient) -> None:
    start.cancel()
    await asyncio.wait([start])
    if not start.cancelled() and start.exception() is None:
        await client.__aexit__(None, None, None)


class CellLoadShedder(Interceptor):
    """Has each cell's own door answer, so that the overload of one turns nobody of another away."""

    def __init__(self, doors: Iterable[LoadShedder]) -> None:
        """Take the cells' doors."""
        self._doors: Final = {path: door for door in doors for path in door.paths}

    def answer(self, request: Request) -> bytes | None:
        """Return the response to a callback that is told to ask again, or None where it is to be heard."""
        door = self._doors.get(request.path)
        return door.answer(request) if door is not None else None


def count_cells(registry: CollectorRegistry, clients: Mapping[str, LedgerClient]) -> None:
    """Register what the clients count: as it is of the only one, with the cell as a label of several."""
    if len(clients) == 1:
        for client in clients.values():
            for counter in client.counters:
                registry.register(counter)
        return
    registry.register(_CellCounters(clients))
    waiting = Gauge(
        "credits_gateway_cell_in_flight",
        "Questions that wait for the ledger of a cell",
        ["cell"],
        registry=registry,
    )
    for name, client in clients.items():
        waiting.labels(name).set_function(partial(_in_flight, client))


def _in_flight(client: LedgerClient) -> int:
    return client.in_flight


class _CellCounters(Collector):
    """The clients' counters: one of each name, with the cell as a further label."""

    def __init__(self, clients: Mapping[str, LedgerClient]) -> None:
        self._clients: Final = clients

    def collect(self) -> Iterable[Metric]:
        """Return what is counted now."""
        families: dict[str, Metric] = {}
        for cell, client in self._clients.items():
            for counted in (metric for counter in client.counters for metric in counter.collect()):
                family = families.setdefault(counted.name, Metric(counted.name, counted.documentation, counted.type))
                for sample in counted.samples:
                    family.add_sample(sample.name, {**sample.labels, "cell": cell}, sample.value)
        return families.values()
