"""A whole system under steady traffic, with a wire that can fail between each two of its parts."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.broker.topology import DEAD_QUEUE, UNSIGNED_QUEUE
from shared.settings import LedgerSettings
from simulator.history import Identity
from simulator.senders import Behaviour, Player, Senders
from tests.bench.processes import cpu_us
from tests.faults.loss import NO_LOSS, Loss
from tests.faults.proxy import Proxy, wired
from tests.support.servers import Servers, fresh_database, fresh_vhost
from tests.support.system import SESSION, Process, System, running_system
from worker.database.engine import create_engine

PUT_ASIDE: Final = (DEAD_QUEUE, UNSIGNED_QUEUE)
PLAYERS: Final = 40
DRAINED_WITHIN_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1

SettingsOf = Callable[[Servers, str], Mapping[str, str]]
"""More variables for all processes, of which a few depend on the servers and on the ledger's URL."""


@dataclass(frozen=True, slots=True)
class Wires:
    """The wires between the parts."""

    gateway_broker: Proxy
    worker_broker: Proxy
    worker_database: Proxy
    worker_cache: Proxy


@dataclass(slots=True)
class Rig:
    """Servers, a gateway, workers, and the providers who send to it."""

    servers: Servers
    system: System
    wires: Wires
    senders: Senders
    engine: AsyncEngine
    """To the ledger, past the wires."""

    vhost: str
    loss: Loss = NO_LOSS
    """What went with a primary that nobody had kept up with, once that has happened."""

    replaced_at: float | None = None
    """When another took the place of what had failed: from then on there is no reason not to serve."""

    def crash(self, process: Process) -> None:
        """End a process without a word."""
        process.send(signal.SIGKILL)

    @property
    def serving(self) -> Process:
        """The worker that has worked most: of several, the broker may let one alone serve."""
        spent = cpu_us({str(n): process.pid for n, process in enumerate(self.system.workers)})
        return self.system.workers[max(range(len(spent)), key=lambda n: spent[str(n)])]

    async def restart(self, process: Process) -> None:
        """Start a process that has crashed, or end one that runs and start it again."""
        await process.end(signal.SIGTERM)
        process.start()

    async def queued(self) -> Mapping[str, int]:
        """Return the messages in each queue, delivered ones included."""
        listed = await self.broker("list_queues", "--no-table-headers", "name", "messages")
        return {name: int(messages) for name, messages in (line.split() for line in listed.splitlines())}

    async def broker(self, command: str, *arguments: str) -> str:
        """Run a command of `rabbitmqctl` on this system's virtual host."""
        whole = ("rabbitmqctl", "--quiet", command, "-p", self.vhost, *arguments)
        return await asyncio.to_thread(self.servers.rabbitmq.run, *whole)

    async def until_drained(self) -> int:
        """Return when nothing is queued but what is put aside; return how much that is."""
        deadline = time.monotonic() + DRAINED_WITHIN_SECONDS
        while True:
            queued = await self.queued()
            waiting = {name: n for name, n in queued.items() if n and name not in PUT_ASIDE}
            if not waiting:
                return sum(queued.get(name, 0) for name in PUT_ASIDE)
            if time.monotonic() > deadline:
                raise AssertionError(f"still queued after {DRAINED_WITHIN_SECONDS:.0f} s: {waiting}")
            await asyncio.sleep(POLL_SECONDS)

    def confirmed(self) -> set[Identity]:
        """Return the credits that the broker has taken upon itself, as the gateway noted.

        A line that a killed gateway has not finished says nothing.
        """
        noted: set[Identity] = set()
        for line in self.system.gateway.log.read_text().splitlines():
            if '"confirmed by the broker"' in line:
                with suppress(json.JSONDecodeError):
                    noted.update((integration, id_) for integration, id_ in json.loads(line)["credits"])
        return noted


@asynccontextmanager
async def rigged(
    servers: Servers, behaviour: Behaviour, workers: int = 2, settings_of: SettingsOf | None = None
) -> AsyncIterator[Rig]:
    """Start a system with a wire between each two parts, and providers who don't send yet."""
    broker_url, database_url = await fresh_vhost(servers), await fresh_database(servers)
    async with AsyncExitStack() as at_end:
        gateway_broker_url, gateway_broker = await at_end.enter_async_context(wired(broker_url))
        worker_broker_url, worker_broker = await at_end.enter_async_context(wired(broker_url))
        worker_database_url, worker_database = await at_end.enter_async_context(wired(database_url))
        worker_cache_url, worker_cache = await at_end.enter_async_context(wired(servers.cache_url))
        engine = create_engine(LedgerSettings(database_url=database_url))
        at_end.push_async_callback(engine.dispose)
        system = await at_end.enter_async_context(
            running_system(
                servers,
                {"CREDITS_BROKER__URL": gateway_broker_url, "CREDITS_LOG__LEVEL": "debug"},
                workers=workers,
                database_url=database_url,
                **{
                    "CREDITS_BROKER__URL": worker_broker_url,
                    "CREDITS_LEDGER__DATABASE_URL": worker_database_url,
                    "CREDITS_CACHE__URL": worker_cache_url,
                    **(settings_of(servers, database_url) if settings_of else {}),
                },
            )
        )
        player_ids = [f"player{number:03}" for number in range(PLAYERS)]
        await system.add_players(player_ids)
        yield Rig(
            servers,
            system,
            Wires(gateway_broker, worker_broker, worker_database, worker_cache),
            Senders(
                system.url,
                system.providers,
                [Player(player_id, f"{SESSION}{player_id}") for player_id in player_ids],
                behaviour,
            ),
            engine,
            broker_url.rpartition("/")[2],
        )
