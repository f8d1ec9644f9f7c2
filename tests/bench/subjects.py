"""What is measured: processes that serve HTTP, each on books of its own with the same players."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from gateway.monitoring import METRICS_STAND_SECONDS
from shared.operations import Wallet
from shared.settings import MEMORY, LedgerSettings
from tests.bench.traffic import PLAYERS, player
from tests.support.servers import Servers, fresh_database
from tests.support.servers.reaper import Reaper
from tests.support.servers.server import free_ports
from tests.support.system import READY_WITHIN_SECONDS, SESSION, WITH_SESSIONS, Process, System, running_system
from worker.database.engine import create_engine
from worker.database.migrate import migrate
from worker.database.schema import players, sessions, transfers, wallets

DEFAULTS: Mapping[str, str] = {"CREDITS_LOG__FORMAT": "text"}
"""What the tests' systems have otherwise than an operator who sets nothing."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that serves HTTP."""

    url: str
    operations_url: str
    """Where its /readyz and /metrics are."""

    roots: Mapping[str, int]
    """The processes at work for it, by name."""

    engine: AsyncEngine | None = None
    """Its books, if it has any."""

    async def outcomes(self) -> dict[str, int]:
        """Return how many credits it has answered, by result, when no more is under way."""
        if self.engine is None:
            return {}
        before: dict[str, float] = {}
        while True:
            async with httpx.AsyncClient(base_url=self.operations_url) as client:
                now = _counted((await client.get("/metrics")).text)
            if now == before and not now["in flight"]:
                return {result: int(number) for result, number in now.items() if result != "in flight"}
            before = now
            await asyncio.sleep(METRICS_STAND_SECONDS)

    async def transfers(self) -> int:
        """Return how many transfers its books hold."""
        if self.engine is None:
            return 0
        async with self.engine.connect() as connection:
            return int((await connection.execute(select(func.count()).select_from(transfers))).scalar_one())


def _counted(exposition: str) -> dict[str, float]:
    counted = {"in flight": 0.0}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            if sample.name == "credits_gateway_in_flight":
                counted["in flight"] = sample.value
            if sample.name == "credits_gateway_outcomes_total":
                result = sample.labels["result"]
                counted[result] = counted.get(result, 0) + sample.value
    return counted


@asynccontextmanager
async def production(
    servers: Servers, settings: Mapping[str, str] = DEFAULTS, *, workers: int = 1
) -> AsyncIterator[tuple[Subject, System]]:
    """Run one gateway and so many workers over the servers, with these settings, else the defaults."""
    async with running_system(servers, workers=workers, **{**DEFAULTS, **settings}) as system:
        await add_players(system.engine)
        roots = {
            "gateway": pid_of(system.gateway),
            **{f"worker {n}" if n > 1 else "worker": pid_of(w) for n, w in enumerate(system.workers, 1)},
            "PostgreSQL": servers.postgres.pid,
            "RabbitMQ": servers.rabbitmq.pid,
            "Redis": servers.redis.pid,
        }
        yield Subject(system.url, system.operations_url, roots, system.engine), system


@asynccontextmanager
async def embedded(servers: Servers) -> AsyncIterator[Subject]:
    """Run a gateway alone, its ledger in one SQLite file, on the disk that PostgreSQL is on."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite+aiosqlite:///{directory}/credits.db"
        memory = {"CREDITS_BROKER__URL": MEMORY, "CREDITS_CACHE__URL": MEMORY}
        async with running_system(servers, workers=0, database_url=url, **DEFAULTS, **memory) as system:
            await system.until_ready()
            await add_players(system.engine)
            yield Subject(system.url, system.operations_url, {"gateway": pid_of(system.gateway)}, system.engine)


@asynccontextmanager
async def direct(servers: Servers, settings: Mapping[str, str]) -> AsyncIterator[Subject]:
    """Run the direct baseline on a database of its own, with a system's other settings."""
    database_url = await fresh_database(servers)
    engine = create_engine(LedgerSettings(database_url=database_url))
    try:
        await migrate(engine)
        await add_players(engine)
        own = {**settings, "CREDITS_LEDGER__DATABASE_URL": database_url}
        async with _serving("tests.bench.baseline", own) as (url, operations_url, pid):
            roots = {"baseline": pid, "PostgreSQL": servers.postgres.pid}
            yield Subject(url, operations_url, roots, engine)
    finally:
        await engine.dispose()


@asynccontextmanager
async def echo(settings: Mapping[str, str]) -> AsyncIterator[Subject]:
    """Run the bare echo."""
    async with _serving("tests.bench.echo", settings) as (url, operations_url, pid):
        yield Subject(url, operations_url, {"echo": pid})


def pid_of(process: Process) -> int:
    """Return the id of a process that was started."""
    assert process.popen is not None
    return process.popen.pid


@asynccontextmanager
async def _serving(module: str, settings: Mapping[str, str]) -> AsyncIterator[tuple[str, str, int]]:
    """Run a module that serves on the gateway's ports; yield both URLs and its process id."""
    port, operations_port = free_ports(2)
    url, operations_url = (f"http://127.0.0.1:{number}" for number in (port, operations_port))
    directory = Path(tempfile.mkdtemp(prefix="credits-bench-"))
    with Reaper(directory) as reaper:
        environment = {
            **settings,
            "CREDITS_GATEWAY__PORT": str(port),
            "CREDITS_GATEWAY__OPERATIONS_PORT": str(operations_port),
        }
        process = Process((module,), environment, directory / "log", reaper)
        process.start()
        try:
            await _until_ready(operations_url, process)
            yield url, operations_url, pid_of(process)
        finally:
            await process.end()


async def _until_ready(url: str, process: Process) -> None:
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    async with httpx.AsyncClient(base_url=url) as client:
        while time.monotonic() < deadline:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)
    raise RuntimeError(f"{process.arguments[0]} is not ready; its log:\n{process.log.read_text()[-3_000:]}")


async def add_players(engine: AsyncEngine) -> None:
    """Add the players, each with two wallets, and a session where wins name sessions only."""
    ids, now = [player(number) for number in range(PLAYERS)], datetime.now(UTC)
    rows = {
        players: [{"id": i, "currency": "EUR", "created_at": now} for i in ids],
        wallets: [
            {
                "id": uuid7(),
                "player_id": i,
                "currency": "EUR",
                "kind": kind,
                "balance_minor": 0,
                "version": 0,
            }
            for i in ids
            for kind in Wallet
        ],
        sessions: [
            {"integration": name, "id": SESSION + i, "player_id": i, "currency": "EUR", "opened_at": now}
            for name in WITH_SESSIONS
            for i in ids
        ],
    }
    async with engine.begin() as connection:
        for table, its_rows in rows.items():
            await connection.execute(insert(table), its_rows)
