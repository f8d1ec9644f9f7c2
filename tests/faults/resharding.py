"""Another number of shards on a running system: every process is restarted with it, one after the other."""

import asyncio
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.experiment import Strike
from tests.faults.rig import Rig
from tests.faults.upgrading import ORDERS, WITHIN_SECONDS, restart
from tests.support.system import Process

NUMBERS: Final = (32, 8)


def reshard(first: str) -> Strike:
    """Give all processes each of NUMBERS in turn, and wait until the gateway uses so many shards."""

    async def strike(rig: Rig) -> None:
        for shards in NUMBERS:
            for process in ORDERS[first](rig):
                await _restart(rig, process, shards)
            async with asyncio.timeout(WITHIN_SECONDS):
                while await _in_use(rig) != shards:
                    await asyncio.sleep(0.2)

    return strike


async def _restart(rig: Rig, process: Process, shards: int) -> None:
    """Restart a process with so many shards; return when it serves, as an operator waits for that."""
    process.environment = {**process.environment, "CREDITS_BROKER__SHARDS": str(shards)}
    await restart(rig, process)


async def _in_use(rig: Rig) -> int:
    async with httpx.AsyncClient(base_url=rig.system.operations_url) as client:
        exposition = (await client.get("/metrics")).text
    samples = [each for family in text_string_to_metric_families(exposition) for each in family.samples]
    return next(int(sample.value) for sample in samples if sample.name == "credits_gateway_shards")
