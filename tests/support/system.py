"""The product as it runs in production: gateway and worker processes over real servers."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import aio_pika
import httpx
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from gateway.providers.base import Provider
from gateway.providers.registry import build
from shared.broker.topology import declare_topology
from shared.cached_call import READINESS_TTL_SECONDS
from shared.message_keys import MessageKeys
from shared.money import Currencies
from shared.settings import MEMORY, BrokerSettings, LedgerSettings
from simulator.dialects import DIALECTS
from tests.support import fork_server
from tests.support.databases import migrated_database
from tests.support.paths import ROOT
from tests.support.servers import Servers, fresh_vhost
from tests.support.servers.reaper import Reaper
from tests.support.servers.server import free_ports
from worker.database.engine import create_engine
from worker.database.migrate import migrate

READY_WITHIN_SECONDS = 30.0
SESSION = "session-of-"
"""A player's session is named by this and the player's id."""

BROKER_KEY = "a key of the tests, of 32 bytes at least"
KEYS = MessageKeys([BROKER_KEY.encode()])

_KINDS = "(VALUES ('REAL'), ('BONUS')) AS kinds (kind)"

INTEGRATIONS: Mapping[str, Mapping[str, str]] = {
    name: {"provider": name, "secrets": f"{name}-secret", **dialect.account, **dialect.usual_settings}
    for name, dialect in DIALECTS.items()
}
"""One integration of each provider, named as that is."""

WITH_SESSIONS: Sequence[str] = [name for name, dialect in DIALECTS.items() if dialect.names_sessions_only]
"""The integrations whose wins name no player but a session."""


@dataclass(slots=True)
class Process:
    """One process of the product, its log in a file."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    reaper: Reaper
    popen: subprocess.Popen[bytes] | None = None
    tree: Path = ROOT
    """The checkout whose code it runs."""

    def start(self) -> None:
        """Start it, in a process group of its own."""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                cwd=self.tree,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.reaper.watch_process(self.popen.pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        """Its id, while it runs."""
        assert self.popen is not None
        return self.popen.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.popen is not None and self.popen.poll() is None

    def send(self, sign: signal.Signals) -> None:
        """Send a signal."""
        assert self.popen is not None
        self.popen.send_signal(sign)

    async def end(self, sign: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.popen is None:
            return 0
        self.popen.send_signal(sign)
        status = await asyncio.to_thread(self.popen.wait, 30)
        self.reaper.forget_process(self.popen.pid)
        self.popen = None
        return status


@dataclass(slots=True)
class System:
    """A gateway, its workers, and their ledger."""

    url: str
    operations_url: str
    """Where the gateway's /readyz and /metrics are."""

    gateway: Process
    workers: list[Process]
    engine: AsyncEngine
    environment: Mapping[str, str]
    new_worker: Callable[[], Process]
    """Make a further worker, without starting it."""

    providers: Mapping[str, Provider[Any, Any]] = field(default_factory=dict)

    def add_worker(self) -> Process:
        """Start a further worker."""
        worker = self.new_worker()
        self.workers.append(worker)
        worker.start()
        return worker

    @property
    def processes(self) -> list[Process]:
        """The gateway and the workers."""
        return [self.gateway, *self.workers]

    async def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m worker ...` on this system's ledger."""
        return await asyncio.to_thread(fork_server.run, "worker", arguments, {**os.environ, **self.environment}, 120)

    async def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT on the ledger."""
        async with self.engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(statement))]

    async def balances(self) -> dict[str, int]:
        """Return each player's whole balance in minor units."""
        rows = await self.query("SELECT player_id, sum(balance_minor) FROM wallets GROUP BY player_id")
        return {player_id: int(balance) for player_id, balance in rows}

    async def add_players(self, player_ids: Sequence[str]) -> None:
        """Add players, each with a session where wins name sessions only."""
        ids = "FROM unnest(CAST(:ids AS text[])) AS id"
        statements = (
            f"INSERT INTO players SELECT id, 'EUR', now() {ids}",
            f"INSERT INTO wallets SELECT gen_random_uuid(), id, 'EUR', kind, 0, 0 {ids}, {_KINDS}",
            *(
                f"INSERT INTO sessions SELECT '{name}', '{SESSION}' || id, id, 'EUR', now() {ids}"
                for name in WITH_SESSIONS
            ),
        )
        async with self.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement), {"ids": list(player_ids)})

    async def until_ready(self, status: int = 200) -> None:
        """Return when /readyz answers with `status` what it has found out since it was asked."""
        asked_at = time.monotonic()
        deadline = asked_at + READY_WITHIN_SECONDS
        async with httpx.AsyncClient(base_url=self.operations_url) as client:
            while time.monotonic() < deadline:
                try:
                    is_new = time.monotonic() > asked_at + READINESS_TTL_SECONDS
                    if (await client.get("/readyz")).status_code == status and is_new:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)
        logs = "\n".join(p.log.read_text()[-3_000:] for p in self.processes)
        raise AssertionError(f"/readyz does not answer {status}; the logs:\n{logs}")


@asynccontextmanager
async def running_system(
    servers: Servers,
    of_gateway: Mapping[str, str] | None = None,
    /,
    *,
    workers: int = 2,
    database_url: str | None = None,
    **overrides: str,
) -> AsyncIterator[System]:
    """Start a system on a virtual host of its own, and on a database of its own or the one that is given.

    `overrides` are environment variables of all its processes, `of_gateway` of the gateway alone.
    """
    environment = {
        **_environment(),
        "CREDITS_LEDGER__DATABASE_URL": database_url or await migrated_database(servers),
        "CREDITS_CACHE__URL": servers.cache_url,
        **overrides,
    }
    if "CREDITS_BROKER__URL" not in environment:
        environment["CREDITS_BROKER__URL"] = await fresh_vhost(servers)
    url, pooler = (
        environment["CREDITS_LEDGER__DATABASE_URL"],
        environment.get("CREDITS_LEDGER__POOLER", "none"),
    )
    engine = create_engine(LedgerSettings.model_validate({"database_url": url, "pooler": pooler}))
    directory = Path(tempfile.mkdtemp(prefix="credits-system-"))
    with Reaper(directory) as reaper:
        system = _make_system(environment, of_gateway or {}, engine, directory, reaper)
        system.workers.extend(system.new_worker() for _ in range(workers))
        try:
            if database_url is not None:
                await migrate(engine)
            for process in system.processes:
                process.start()
            if workers:
                await system.until_ready()
            yield system
        finally:
            await asyncio.gather(*(process.end() for process in system.processes))
            await engine.dispose()


async def make_topology(broker_url: str, shards: int = BrokerSettings().shards) -> None:
    """Make on a broker what the first worker makes there."""
    async with await aio_pika.connect(broker_url) as connection, connection.channel() as channel:
        await declare_topology(channel, shards)


def _environment() -> dict[str, str]:
    """Return the settings of the integrations as environment variables; no file is read."""
    environment = {
        f"CREDITS_INTEGRATIONS__{name.upper()}__{key.upper()}": value
        for name, table in INTEGRATIONS.items()
        for key, value in table.items()
    }
    return {
        **environment,
        "CREDITS_BROKER__KEYS": json.dumps([BROKER_KEY]),
        "CREDITS_CONFIG": "",
        "CREDITS_LOG__FORMAT": "json",
    }


def known_to_gateway(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a gateway is told: nothing of database and cache, unless it is a worker as well."""
    if environment["CREDITS_BROKER__URL"] == MEMORY:
        return dict(environment)
    of_workers = ("CREDITS_LEDGER__", "CREDITS_CACHE__")
    return {
        name: value
        for name, value in environment.items()
        if not (name.startswith(of_workers) or "__LEDGER__" in name or "__CACHE__" in name)
    }


def _make_system(
    environment: dict[str, str],
    of_gateway: Mapping[str, str],
    engine: AsyncEngine,
    directory: Path,
    reaper: Reaper,
) -> System:
    port, operations_port = free_ports(2)
    environment["CREDITS_GATEWAY__PORT"] = str(port)
    environment["CREDITS_GATEWAY__OPERATIONS_PORT"] = str(operations_port)
    numbers = count()

    def new_worker() -> Process:
        log = directory / f"worker-{next(numbers)}.log"
        return Process(("worker", "run"), environment, log, reaper)

    return System(
        url=f"http://127.0.0.1:{port}",
        operations_url=f"http://127.0.0.1:{operations_port}",
        gateway=Process(
            ("gateway",), {**known_to_gateway(environment), **of_gateway}, directory / "gateway.log", reaper
        ),
        workers=[],
        engine=engine,
        environment=environment,
        new_worker=new_worker,
        providers={name: build(name, table, Currencies()) for name, table in INTEGRATIONS.items()},
    )
