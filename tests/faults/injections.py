"""What can be done to a system: each strike does its damage, lets it last, and heals it."""

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from tests.bench.processes import descendants
from tests.faults.clock import clock_of
from tests.faults.experiment import Strike
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig
from tests.support.servers import Server
from tests.support.system import Process

BRIEF_SECONDS: Final = 2.0
BEYOND_WINDOW_SECONDS: Final = 6.0
"""Longer than a gateway has for a reply to most providers."""

DIES_WITHIN_SECONDS: Final = 20.0
SLOW_SECONDS: Final = 0.2
"""How long a slow wire holds everything back, each way."""

WireOf = Callable[[Rig], Proxy]
ServerOf = Callable[[Rig], Server]
ProcessOf = Callable[[Rig], Process]


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
        struck = process(rig)
        rig.crash(struck)
        await asyncio.sleep(1)
        await rig.restart(struck)

    return strike


def stop(process: ProcessOf, seconds: float) -> Strike:
    """Stop a process as it stands, and let it go on with what it had in its hands."""

    async def strike(rig: Rig) -> None:
        struck = process(rig)
        struck.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            struck.send(signal.SIGCONT)

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


def pause_server(server: ServerOf, seconds: float = BEYOND_WINDOW_SECONDS) -> Strike:
    """Stop every process of a server, for longer than providers wait, its connections open."""

    async def strike(rig: Rig) -> None:
        stopped = descendants(server(rig).pid)
        _signal(stopped, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            _signal(stopped, signal.SIGCONT)

    return strike


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def die_at(step: str) -> Strike:
    """Let a worker serve that kills itself at a step, and the others only when it has."""

    async def strike(rig: Rig) -> None:
        fatal, *others = rig.system.workers
        await asyncio.gather(*(worker.end() for worker in rig.system.workers))
        usual, fatal.arguments = fatal.arguments, ("tests.faults.crashing", step, "run")
        fatal.start()
        try:
            async with asyncio.timeout(DIES_WITHIN_SECONDS):
                while fatal.is_running:
                    await asyncio.sleep(0.05)
        finally:
            fatal.arguments = usual
        assert fatal.popen is not None
        assert fatal.popen.returncode == -signal.SIGKILL, fatal.log.read_text()[-1_000:]
        await asyncio.sleep(1)
        for worker in (*others, fatal):
            await rig.restart(worker)

    return strike


async def clock_steps(rig: Rig) -> None:
    """Set one worker's clock an hour ahead, and an hour back, while it alone serves."""
    ahead, *others = rig.system.workers
    await asyncio.gather(*(worker.end() for worker in rig.system.workers))
    with tempfile.NamedTemporaryFile("w", suffix=".clock") as clock:
        usual, ahead.environment = ahead.environment, {**ahead.environment, **clock_of(clock.name)}
        try:
            for offset in ("+0", "+3600s", "-3600s", "+0"):
                await asyncio.to_thread(Path(clock.name).write_text, offset)
                if not ahead.is_running:
                    ahead.start()
                await asyncio.sleep(BRIEF_SECONDS)
        finally:
            ahead.environment = usual
        for worker in (*others, ahead):
            await rig.restart(worker)
    off = await rig.system.query(
        "SELECT count(*) FILTER (WHERE posted_at > now() + interval '30 minutes'),"
        " count(*) FILTER (WHERE posted_at < now() - interval '30 minutes') FROM transfers"
    )
    assert all(off[0]), f"the clock was never off: {off}"


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
    await _alarm(rig, ("set_disk_free_limit", "10000000000000"), ("set_disk_free_limit", "50MB"))


async def memory_alarm(rig: Rig) -> None:
    """Have the broker find its memory full."""
    await _alarm(rig, ("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.4"))


async def _alarm(rig: Rig, raised: tuple[str, str], cleared: tuple[str, str]) -> None:
    run = rig.servers.rabbitmq.run
    await asyncio.to_thread(run, "rabbitmqctl", "--quiet", *raised)
    try:
        await asyncio.sleep(BEYOND_WINDOW_SECONDS)
    finally:
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


async def cache_lies(rig: Rig) -> None:
    """Have Redis tell of each win what it knows of another, or garbage, to workers that must ask it."""
    looked = 0
    async with Redis.from_url(rig.servers.cache_url) as redis:
        reads_before = await _reads(redis)
        for worker in rig.system.workers:
            await rig.restart(worker)
            for _ in range(8):
                if keys := [key async for key in redis.scan_iter("credits:*", count=1_000)]:
                    looked += 1
                    told = [value or b"" for value in await redis.mget(keys)]
                    await redis.mset(dict(zip(keys, [*told[1:], b"garbage"], strict=True)))
                await asyncio.sleep(0.2)
        assert looked, "there was nothing to lie about"
        assert await _reads(redis) > reads_before, "no worker has asked"


async def _reads(redis: Redis) -> int:
    """Return how often Redis was asked for entries since it started."""
    commands = await redis.info("commandstats")
    return int(commands.get("cmdstat_getrange", {"calls": 0})["calls"])
