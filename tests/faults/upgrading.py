"""A rolling change between this version and the last release, under traffic, process by process."""

import asyncio
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.faults.experiment import Strike
from tests.faults.rig import Rig
from tests.support.paths import ROOT
from tests.support.releases import unpack_last_release
from tests.support.system import Process

SERVING: Final = '"worker serves"'
WITHIN_SECONDS: Final = 30.0
MIXED_SECONDS: Final = 1.0
"""The time for which the versions work together after each process that was changed."""

ORDERS: Final[Mapping[str, Callable[[Rig], Sequence[Process]]]] = {
    "gateways": lambda rig: [rig.system.gateway, *rig.system.workers],
    "workers": lambda rig: [*rig.system.workers, rig.system.gateway],
}
"""The order of the processes, by the kind that is first."""


def replace_release(first: str) -> Strike:
    """Put the last release in the place of this version, and then this version in the place of that again."""

    async def strike(rig: Rig) -> None:
        with tempfile.TemporaryDirectory(prefix="credits-release-") as directory:
            for tree in (unpack_last_release(Path(directory)), ROOT):
                for process in ORDERS[first](rig):
                    process.tree = tree
                    await restart(rig, process)
                    await asyncio.sleep(MIXED_SECONDS)

    return strike


async def restart(rig: Rig, process: Process) -> None:
    """Restart a process; return when it serves, as an operator waits for that."""
    before = process.log.read_text().count(SERVING)
    await rig.restart(process)
    if process is rig.system.gateway:
        await rig.system.until_ready()
        return
    async with asyncio.timeout(WITHIN_SECONDS):
        while process.log.read_text().count(SERVING) == before:
            await asyncio.sleep(0.1)
