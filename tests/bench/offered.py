"""Runs of offered load: an open-loop client in a process of its own, and the books checked after it."""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests.bench import traffic
from tests.bench.closed_loop import CLIENT, Books, Costs, requests_file
from tests.bench.disk import DiskProbe
from tests.bench.open_loop import QUANTILES, Told
from tests.bench.subjects import Subject
from tests.bench.wrk import VoidRunError
from tests.support.paths import ROOT

CONNECTIONS: Final = 400
"""More than are ever in use while the system keeps up."""

SHARES: Final = (0.25, 0.5, 0.75, 0.9)
"""Of the measured peak."""

JUDGED_SHARE: Final = 0.5
"""There is a target for the latency at this one."""


class OfferedRun(msgspec.Struct, frozen=True):
    """A measured run."""

    share: float
    """Of the peak."""

    offered_per_second: float
    per_second: float
    """Answered."""

    sent: int
    unpaid: int
    """Told to ask again."""

    missed: int
    """Not answered within the provider's window."""

    latency_ms: Sequence[float]
    """At each of `open_loop.QUANTILES`, from the instant at which a win was due."""

    by_integration_ms: Mapping[str, Sequence[float]]
    cpu_us: Mapping[str, float]
    longest_sync_ms: float
    """What the disk took at most meanwhile to sync a block of somebody else."""

    @property
    def all_cpu_us(self) -> float:
        """What a credit costs all processes but the client's."""
        return sum(us for name, us in self.cpu_us.items() if name != CLIENT)

    def at(self, quantile: float) -> float:
        """Return the latency at one of QUANTILES, in ms."""
        return self.latency_ms[QUANTILES.index(quantile)]


async def measure(subject: Subject, peak_per_second: float, share: float, seconds: float) -> OfferedRun:
    """Offer a share of the peak. Raises VoidRunError."""
    offered = peak_per_second * share
    with requests_file(traffic.wins(), int(offered * seconds)) as path:
        books = await Books.read(subject)
        costs = Costs.begin(subject)
        with DiskProbe() as disk:
            told = await asyncio.to_thread(_run_client, subject.url, path, offered)
        spent_us = await costs.end()
    await books.check(told.sent, told.sent, told.unpaid, told.unpaid)
    return OfferedRun(
        share=share,
        offered_per_second=offered,
        per_second=told.sent / told.seconds,
        sent=told.sent,
        unpaid=told.unpaid,
        missed=told.missed,
        latency_ms=told.latency_ms,
        by_integration_ms=told.by_integration_ms,
        # Of the client's process only what it used while it measured: it takes a second to start.
        cpu_us={name: us / told.sent for name, us in {**spent_us, CLIENT: told.cpu_us}.items()},
        longest_sync_ms=disk.longest_seconds * 1_000,
    )


def _run_client(url: str, path: Path, per_second: float) -> Told:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.open_loop", url, str(path), str(per_second), str(CONNECTIONS)],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    if done.returncode:
        raise VoidRunError(f"the open-loop client failed: {done.stderr.decode().strip()[-1_000:]}")
    return msgspec.json.decode(done.stdout, type=Told)
