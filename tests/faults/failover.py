"""The cache fails over: its primary is killed, and its sentinels make the replica the primary."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Final

from tests.faults.injections import BRIEF_SECONDS
from tests.faults.rig import Rig
from tests.support.servers.sentinels import RedisServers, running_redis_servers
from tests.support.system import Process

WITHIN_SECONDS: Final = 60.0
SERVES: Final = '"worker serves"'
POLL_SECONDS: Final = 0.2


async def cache_primary_killed(rig: Rig) -> None:
    """Have the workers use a cache behind sentinels, and kill its primary; it comes back as a replica."""
    async with _behind_sentinels(rig) as redis:
        await _until(lambda: redis.keys(redis.primary) > 0)
        killed = await asyncio.to_thread(lambda: redis.primary)
        await asyncio.to_thread(redis.servers[killed].kill)
        await _until(lambda: redis.primary not in (0, killed))
        kept = await asyncio.to_thread(lambda: redis.keys(redis.primary))
        await _until(lambda: redis.keys(redis.primary) > kept)
        await asyncio.to_thread(redis.servers[killed].start)
        await asyncio.sleep(BRIEF_SECONDS)


@asynccontextmanager
async def _behind_sentinels(rig: Rig) -> AsyncIterator[RedisServers]:
    """Restart each worker on a cache of their own, while the other serves, and then on that of before."""
    at_end = ExitStack()
    redis = await asyncio.to_thread(at_end.enter_context, running_redis_servers())
    try:
        usual = rig.system.workers[0].environment
        await _restart_with(rig, redis.url)
        yield redis
        await _restart_with(rig, usual["CREDITS_CACHE__URL"])
    finally:
        await asyncio.to_thread(at_end.close)


async def _restart_with(rig: Rig, cache_url: str) -> None:
    for worker in rig.system.workers:
        worker.environment = {**worker.environment, "CREDITS_CACHE__URL": cache_url}
        before = _times_served(worker)
        await rig.restart(worker)
        await _until(partial(_serves_again, worker, before))


def _times_served(worker: Process) -> int:
    return worker.log.read_text().count(SERVES)


def _serves_again(worker: Process, before: int) -> bool:
    return _times_served(worker) > before


async def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, "the cache has not failed over, or a worker not started"
        await asyncio.sleep(POLL_SECONDS)
