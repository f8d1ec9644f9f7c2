"""Another number of shards on a running system: every process is restarted with it, one after the other."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.faults.rig import Rig
from tests.faults.trial import Strike
from tests.system import Process

NUMBERS: Final = (32, 8)
PAUSE_SECONDS: Final = 1.5
IN_USE_WITHIN_SECONDS: Final = 20.0

ORDERS: Final[Mapping[str, Callable[[Rig], Sequence[Process]]]] = {
    "gateways": lambda rig: [rig.system.gateway, *rig.system.workers],
    "workers": lambda rig: [*rig.system.workers, rig.system.gateway],
}
"""By who is first."""


def reshard(first: str) -> Strike:
    """Give all processes each of NUMBERS in turn, and wait until the gateway uses so many shards."""

    async def strike(rig: Rig) -> None:
        for shards in NUMBERS:
            for process in ORDERS[first](rig):
                process.environment = {**process.environment, "CREDITS_BROKER__SHARDS": str(shards)}
                await rig.restart(process)
                await asyncio.sleep(PAUSE_SECONDS)
            await rig.system.until_ready()
            async with asyncio.timeout(IN_USE_WITHIN_SECONDS):
                while await _in_use(rig) != shards:
                    await asyncio.sleep(0.2)

    return strike


async def _in_use(rig: Rig) -> int:
    async with httpx.AsyncClient(base_url=rig.system.operations_url) as client:
        exposition = (await client.get("/metrics")).text
    samples = [each for family in text_string_to_metric_families(exposition) for each in family.samples]
    return next(int(sample.value) for sample in samples if sample.name == "credits_gateway_shards")
