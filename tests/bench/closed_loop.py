"""Closed-loop runs, each checked: a number is only told of wins that were paid, all of them in the books."""

import asyncio
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from tests.bench import traffic, wrk
from tests.bench.processes import cpu_us
from tests.bench.subjects import Subject
from tests.bench.wrk import VoidRunError, Wrk

REQUESTS_PER_SECOND_MAX: Final = 25_000
"""So many are made in advance, more than are ever sent on a machine of two cores; if they run out, more."""

_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (the directory made there is this run's alone)
_REQUEST_BYTES: Final = 600


class Run(msgspec.Struct, frozen=True):
    """A measured run."""

    name: str
    connections: int
    per_second: float
    """Credits; of a yardstick its own transactions or requests."""

    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_us: Mapping[str, float]
    """By process, for each credit."""

    @property
    def all_cpu_us(self) -> float:
        """What a credit costs, but for who sends it."""
        return sum(us for name, us in self.cpu_us.items() if name != CLIENT)


class Load(msgspec.Struct, frozen=True):
    """What is sent: an endless stream of requests, and how many credits each holds."""

    name: str
    requests: Iterator[bytes]
    items: int = 1
    per_second_max: int = REQUESTS_PER_SECOND_MAX


CLIENT: Final = "load client"


async def measure(subject: Subject, load: Load, connections: int, seconds: float) -> Run:
    """Run a load in a closed loop. Raises VoidRunError when the number would be worthless."""
    per_second_max = load.per_second_max
    while True:
        with requests_file(load.requests, int(per_second_max * seconds)) as path:
            try:
                return await _measure(subject, load, path, connections, seconds)
            except wrk.ExhaustedError:
                per_second_max *= 2


@contextmanager
def requests_file(requests: Iterator[bytes], number: int) -> Iterator[Path]:
    """Write so many requests to a file, in memory if it fits: the disk is the database's meanwhile."""
    fits = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 2 * number * _REQUEST_BYTES
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if fits else None) as directory:
        path = Path(directory) / "requests"
        traffic.write(path, islice(requests, number))
        yield path


async def _measure(subject: Subject, load: Load, path: Path, connections: int, seconds: float) -> Run:
    books = await _Books.read(subject)
    cpu_before, client_before = cpu_us(subject.roots), client_cpu_us()
    told = await asyncio.to_thread(wrk.run, subject.url, path, connections, seconds)
    client_us = client_cpu_us() - client_before
    answered = await books.check(subject, told, load.items)
    cpu = {name: (us - cpu_before[name]) / answered for name, us in cpu_us(subject.roots).items()}
    return Run(
        name=load.name,
        connections=connections,
        per_second=told.completed * load.items / told.seconds,
        p50_ms=told.p50_ms,
        p99_ms=told.p99_ms,
        p999_ms=told.p999_ms,
        max_ms=told.max_ms,
        cpu_us={**cpu, CLIENT: client_us / answered},
    )


def client_cpu_us() -> float:
    """Return the CPU microseconds of all programs that this process ran and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1_000_000


class _Books(msgspec.Struct, frozen=True):
    """What a subject has answered and holds, before a run."""

    outcomes: Mapping[str, int]
    transfers: int

    @classmethod
    async def read(cls, subject: Subject) -> "_Books":
        if subject.engine is None:
            return cls({}, 0)
        return cls(await subject.outcomes(), await subject.transfers())

    async def check(self, subject: Subject, told: Wrk, items: int) -> int:
        """Return how many credits were answered. Raises VoidRunError if not all were paid, and in the books.

        wrk leaves without the last replies, so what was answered is between what it counted and what it sent.
        """
        if subject.engine is None:
            return told.completed
        now = await _Books.read(subject)
        news = {name: number - self.outcomes.get(name, 0) for name, number in now.outcomes.items()}
        answered = sum(news.values())
        if unpaid := {name: n for name, n in news.items() if n and name not in {"posted", "replayed"}}:
            raise VoidRunError(f"credits were not paid: {unpaid}")
        if not told.completed * items <= answered <= told.sent * items:
            raise VoidRunError(f"{answered} answers to {told.completed} replies, {told.sent} sent, of {items}")
        if now.transfers - self.transfers != news.get("posted", 0):
            raise VoidRunError(f"{now.transfers - self.transfers} new transfers, but {news} told")
        return answered
