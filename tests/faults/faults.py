"""The faults, by name: each does its damage, lets it last, and heals it."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from typing import Final

from redis.asyncio import Redis

from tests.faults.proxy import Proxy
from tests.faults.rig import Rig
from tests.faults.trial import Fault, Strike
from tests.servers import Server
from tests.system import Process

BRIEF_SECONDS: Final = 2.0
BEYOND_WINDOW_SECONDS: Final = 6.0
"""Longer than a gateway has for a reply to most providers."""

SLOW_SECONDS: Final = 0.2
"""How long a slow wire holds everything back, each way."""

WireOf = Callable[[Rig], Proxy]
ServerOf = Callable[[Rig], Server]
ProcessOf = Callable[[Rig], Process]

WIRES: Final[Mapping[str, WireOf]] = {
    "gateway and broker": lambda rig: rig.wires.gateway_broker,
    "worker and broker": lambda rig: rig.wires.worker_broker,
    "worker and database": lambda rig: rig.wires.worker_database,
    "worker and cache": lambda rig: rig.wires.worker_cache,
}


def cut(wire: WireOf) -> Strike:
    """Cut a wire, and refuse connections for a while."""

    async def strike(rig: Rig) -> None:
        await wire(rig).cut()
        await asyncio.sleep(BRIEF_SECONDS)
        await wire(rig).mend()

    return strike


def freeze(wire: WireOf, seconds: float, *, dropped: bool) -> Strike:
    """Let a wire swallow everything; then let it through after all, or drop what was under way."""

    async def strike(rig: Rig) -> None:
        wire(rig).freeze()
        await asyncio.sleep(seconds)
        await (wire(rig).drop_frozen() if dropped else wire(rig).mend())

    return strike


def slow(wire: WireOf) -> Strike:
    """Make a wire as slow as one around the world."""

    async def strike(rig: Rig) -> None:
        wire(rig).slow(SLOW_SECONDS)
        await asyncio.sleep(BEYOND_WINDOW_SECONDS)
        await wire(rig).mend()

    return strike


def kill(process: ProcessOf) -> Strike:
    """End a process without a word, and start it again a second later."""

    async def strike(rig: Rig) -> None:
        rig.crash(process(rig))
        await asyncio.sleep(1)
        await rig.restart(process(rig))

    return strike


def stop(process: ProcessOf, seconds: float) -> Strike:
    """Stop a process as it stands, and let it go on with what it had in its hands."""

    async def strike(rig: Rig) -> None:
        process(rig).send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process(rig).send(signal.SIGCONT)

    return strike


def crash_server(server: ServerOf) -> Strike:
    """Crash a server, and start it again on what it had on its disk."""

    async def strike(rig: Rig) -> None:
        await asyncio.to_thread(server(rig).kill)
        await asyncio.sleep(1)
        await asyncio.to_thread(server(rig).start)

    return strike


def restart_server(server: ServerOf) -> Strike:
    """Shut a server down in good order, and start it again."""

    async def strike(rig: Rig) -> None:
        await asyncio.to_thread(server(rig).stop)
        await asyncio.to_thread(server(rig).start)

    return strike


async def all_workers_killed(rig: Rig) -> None:
    """Leave nobody who could post, for longer than providers wait."""
    for worker in rig.system.workers:
        rig.crash(worker)
    await asyncio.sleep(BEYOND_WINDOW_SECONDS)
    for worker in rig.system.workers:
        await rig.restart(worker)


async def rolling_restart(rig: Rig) -> None:
    """Restart every worker in good order, one after the other, as a new version does."""
    for worker in list(rig.system.workers):
        await rig.restart(worker)
        await asyncio.sleep(1)


async def scaling(rig: Rig) -> None:
    """Add two workers under load, and take two away again."""
    for _ in range(2):
        rig.system.add_worker()
        await asyncio.sleep(1.5)
    for worker in rig.system.workers[:2]:
        await worker.end()
        await asyncio.sleep(1)


async def disk_alarm(rig: Rig) -> None:
    """Have the broker find its disk full: it takes nothing more from who publishes."""
    await _alarm(rig, ("set_disk_free_limit", "10TB"), ("set_disk_free_limit", "50MB"))


async def memory_alarm(rig: Rig) -> None:
    """Have the broker find its memory full."""
    await _alarm(rig, ("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4"))


async def _alarm(rig: Rig, raised: tuple[str, str], cleared: tuple[str, str]) -> None:
    run = rig.servers.rabbitmq.run
    await asyncio.to_thread(run, "rabbitmqctl", "--quiet", *raised)
    await asyncio.sleep(BEYOND_WINDOW_SECONDS)
    await asyncio.to_thread(run, "rabbitmqctl", "--quiet", *cleared)


async def no_connections_left(rig: Rig) -> None:
    """End every connection to the ledger and let none in: the database has no more to give."""
    database = rig.engine.url.database
    async with rig.engine.connect() as connection:
        await connection.exec_driver_sql(f'ALTER DATABASE "{database}" CONNECTION LIMIT 0')
        await connection.commit()
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.commit()
        await asyncio.sleep(BRIEF_SECONDS)
        await connection.exec_driver_sql(f'ALTER DATABASE "{database}" CONNECTION LIMIT -1')
        await connection.commit()


async def cache_flushed(rig: Rig) -> None:
    """Empty Redis, again and again."""
    async with Redis.from_url(rig.servers.cache_url) as redis:
        for _ in range(10):
            await redis.flushall()
            await asyncio.sleep(0.2)


_kinds = [
    Fault("a worker is killed", kill(lambda rig: rig.system.workers[0]), 3, in_ci=True),
    Fault("all workers are killed, and stay away beyond the window", all_workers_killed, 8, in_ci=True),
    Fault("a worker is stopped for 10 s, and goes on", stop(lambda rig: rig.system.workers[0], 10), 12),
    Fault("the gateway is killed", kill(lambda rig: rig.system.gateway), 3, in_ci=True),
    Fault("workers are restarted one after the other", rolling_restart, 5),
    Fault("workers grow from 2 to 4 and shrink to 2", scaling, 8),
    Fault("the broker is killed", crash_server(lambda rig: rig.servers.rabbitmq), 10, in_ci=True),
    Fault("the broker is restarted", restart_server(lambda rig: rig.servers.rabbitmq), 12),
    Fault("the broker's disk is full", disk_alarm, 8),
    Fault("the broker's memory is full", memory_alarm, 8),
    Fault("the database is killed", crash_server(lambda rig: rig.servers.postgres), 4, in_ci=True),
    Fault("the database is restarted", restart_server(lambda rig: rig.servers.postgres), 4),
    Fault("the database has no connections left", no_connections_left, 4),
    Fault("the cache is killed", crash_server(lambda rig: rig.servers.redis), 3),
    Fault("the cache is emptied again and again", cache_flushed, 4),
]
for _between, _wire in WIRES.items():
    _kinds += [
        Fault(f"the wire between {_between} is cut", cut(_wire), 4),
        Fault(
            f"the wire between {_between} is half-open, then dropped",
            freeze(_wire, BEYOND_WINDOW_SECONDS, dropped=True),
            8,
        ),
        Fault(
            f"the wire between {_between} swallows everything, then delivers it",
            freeze(_wire, BEYOND_WINDOW_SECONDS, dropped=False),
            8,
        ),
        Fault(f"the wire between {_between} is slow", slow(_wire), 8),
    ]

FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _kinds}
"""By name."""
