"""Replicas of the worker: shards spread over those that come and go, and each win is paid once meanwhile."""

import asyncio
from collections import Counter

import pytest

from tests.faults.experiment import Fault, run
from tests.faults.rig import Rig
from tests.support.servers import Servers

SHARDS = 16
SPREAD_WITHIN_SECONDS = 20.0


async def served_shards(rig: Rig) -> Counter[str]:
    """Return how many shards each worker serves, by its channel's name."""
    listed = await rig.broker("list_consumers", "--no-table-headers", "queue_name", "channel_pid", "active")
    consumers = [line.split("\t") for line in listed.splitlines()]
    return Counter(
        channel for queue, channel, active in consumers if queue.startswith("credits.shard.") and active == "true"
    )


async def resize(rig: Rig, workers: int) -> None:
    while len(rig.system.workers) < workers:
        rig.system.add_worker()
    while len(rig.system.workers) > workers:
        await rig.system.workers.pop(0).end()


@pytest.mark.any_server
async def test_shards_spread_over_workers_that_come_and_go(servers: Servers) -> None:
    """From 4.0 on, RabbitMQ heeds priorities among single active consumers; on 3.10 one worker serves all."""
    version = await asyncio.to_thread(servers.rabbitmq.run, "rabbitmqctl", "--quiet", "version")
    spreads = int(version.split(".")[0]) >= 4
    seen: list[list[int]] = []

    async def strike(rig: Rig) -> None:
        for workers in (1, 3, 2, 4):
            await resize(rig, workers)
            wanted = range(2, workers + 1) if spreads and workers > 1 else range(1, 2)
            async with asyncio.timeout(SPREAD_WITHIN_SECONDS):
                while True:
                    served = await served_shards(rig)
                    if served.total() == SHARDS and len(served) in wanted:
                        break
                    await asyncio.sleep(0.2)
            await asyncio.sleep(1)
            seen.append(sorted((await served_shards(rig)).values()))

    trial = await run(servers, Fault("replicas 1, 3, 2, 4", strike))
    assert trial.holds, trial.complaints
    assert trial.confirmed > 300
    assert [sum(shards) for shards in seen] == [SHARDS] * 4
    assert max(seen[1][-1], seen[3][-1]) < SHARDS or not spreads, seen
