"""A system of two cells on real servers: one gateway for both, and a worker for each."""

import time
from asyncio import sleep
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from time import monotonic
from uuid import uuid4

import httpx

from gateway.providers.base import Win
from shared.cached_call import READINESS_TTL_SECONDS
from shared.settings import LedgerSettings
from simulator.client import Response
from simulator.dialects import read_reply
from simulator.history import ReplyMeaning
from tests.faults.proxy import Proxy, wired
from tests.support.servers import Servers, fresh_database, fresh_vhost
from tests.support.system import INTEGRATIONS, READY_WITHIN_SECONDS, Process, System, running_system
from worker.database.engine import create_engine

CELL_OF = {name: "brand2" if name in {"hpgames", "igamingace"} else "main" for name in INTEGRATIONS}
PLAYER = "anna"
"""A player of the same id in both cells, who are two people."""


@dataclass
class TwoCells:
    """The cells, which have a gateway in common."""

    main: System
    brand2: System
    """The same processes and commands, with the books of the other cell."""

    gateways_wire: Proxy
    """Between the gateway and the broker of `brand2`."""

    workers: dict[str, Process]

    async def send(self, integration: str, tx_id: str, player: str = PLAYER) -> ReplyMeaning:
        """Send a win of 10.50 EUR as its provider does; return what the reply says."""
        return (await self.timed(integration, tx_id, player))[0]

    async def timed(self, integration: str, tx_id: str, player: str = PLAYER) -> tuple[ReplyMeaning, float]:
        """Send a win; return what the reply says, and after how many seconds."""
        provider = self.main.providers[integration]
        win = provider.sample_request(Win(tx_id, player, f"session-of-{player}"))
        began = monotonic()
        async with httpx.AsyncClient(base_url=self.main.url, timeout=30) as client:
            reply = await client.post(
                f"/{integration}/{win.path}", params=win.query, content=win.body, headers=win.headers
            )
        headers = {name.lower(): value for name, value in reply.headers.items()}
        response = Response(reply.status_code, reply.content, headers)
        return read_reply(provider, "EUR", response)[0], monotonic() - began

    async def states(self) -> dict[str, str]:
        """Return what the gateway, which is ready, says of each cell now."""
        await sleep(READINESS_TTL_SECONDS)
        async with httpx.AsyncClient(base_url=self.main.operations_url) as client:
            ready = await client.get("/readyz")
        assert ready.status_code == 200, ready.text
        cells: dict[str, str] = ready.json()["cells"]
        return cells

    async def until_ready(self) -> None:
        """Return when both cells are ready."""
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while time.monotonic() < deadline:
            try:
                if set((await self.states()).values()) == {"ready"}:
                    return
            except (httpx.TransportError, AssertionError):
                pass
            await sleep(0.1)
        logs = "\n".join(process.log.read_text()[-3_000:] for process in self.main.processes)
        raise AssertionError(f"not ready; the logs:\n{logs}")


def new_id() -> str:
    """Return an id of a win that every provider's format admits."""
    return str(uuid4())


@asynccontextmanager
async def two_cells(servers: Servers) -> AsyncIterator[TwoCells]:
    """Start them on a database and a virtual host each."""
    broker_url, database_url = await fresh_vhost(servers), await fresh_database(servers)
    overrides = {
        f"CREDITS_INTEGRATIONS__{name.upper()}__CELL": cell for name, cell in CELL_OF.items() if cell != "main"
    }
    overrides |= {
        "CREDITS_CELLS__BRAND2__BROKER__URL": broker_url,
        "CREDITS_CELLS__BRAND2__LEDGER__DATABASE_URL": database_url,
        "CREDITS_CELLS__BRAND2__CACHE__URL": servers.cache_url,
    }
    engine = create_engine(LedgerSettings(database_url=database_url))
    async with wired(broker_url) as (gateways_url, wire):
        of_gateway = {"CREDITS_CELLS__BRAND2__BROKER__URL": gateways_url}
        async with running_system(servers, of_gateway, workers=0, **overrides) as main:
            migrated = await main.command("migrate")
            assert migrated.returncode == 0, migrated.stderr
            workers = {cell: main.new_worker() for cell in ("main", "brand2")}
            for cell, worker in workers.items():
                worker.arguments = ("worker", "run", "--cell", cell)
                main.workers.append(worker)
                worker.start()
            cells = TwoCells(main, replace(main, engine=engine), wire, workers)
            for system in (main, cells.brand2):
                await system.add_players([PLAYER, f"only-in-{'main' if system is main else 'brand2'}"])
            await cells.until_ready()
            yield cells
    await engine.dispose()
