"""Closed-loop runs, each checked: a number is only told of wins that were paid, all of them in the books."""

import asyncio
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tests.bench import traffic, wrk
from tests.bench.processes import cpu_us
from tests.bench.subjects import Subject
from tests.bench.wrk import VoidRunError

CLIENT: Final = "load client"

REQUESTS_PER_SECOND_MAX: Final = 25_000
OF_A_CONNECTION_PER_SECOND_MAX: Final = 2_000
"""So many are made in advance, more than are ever sent on a machine of two cores; if they run out, more."""

_IN_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (the directory made there is this run's alone)


class Run(msgspec.Struct, frozen=True):
    """A measured run."""

    name: str
    connections: int
    per_second: float
    """Credits that were paid; of a yardstick its own transactions or requests."""

    p50_ms: float
    """Latencies; 0 where who measured doesn't tell."""

    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_us: Mapping[str, float]
    """By process, for each credit."""

    refused_per_second: float = 0.0
    """Told to ask again."""

    @property
    def all_cpu_us(self) -> float:
        """What a credit costs all processes but the client's."""
        return sum(us for name, us in self.cpu_us.items() if name != CLIENT)


class Load(msgspec.Struct, frozen=True):
    """What is sent: an endless stream of requests, and how many credits each holds."""

    name: str
    requests: Iterator[bytes]
    items: int = 1
    per_second_max: int = REQUESTS_PER_SECOND_MAX
    may_be_refused: bool = False
    """Whether some may be told to ask again; then each request holds one credit."""


async def measure(subject: Subject, load: Load, connections: int, seconds: float) -> Run:
    """Run a load in a closed loop. Raises VoidRunError when the number would be worthless."""
    per_second_max = min(load.per_second_max, connections * OF_A_CONNECTION_PER_SECOND_MAX)
    while True:
        with requests_file(load.requests, int(per_second_max * seconds)) as path:
            try:
                return await _measure(subject, load, path, connections, seconds)
            except wrk.ExhaustedError:
                per_second_max *= 2


@contextmanager
def requests_file(requests: Iterator[bytes], number: int) -> Iterator[Path]:
    """Write so many requests to a file, in memory if it fits: the disk is the database's meanwhile."""
    first = next(requests)
    fits = _IN_MEMORY.is_dir() and shutil.disk_usage(_IN_MEMORY).free > 2 * number * len(first)
    with tempfile.TemporaryDirectory(dir=_IN_MEMORY if fits else None) as directory:
        path = Path(directory) / "requests"
        traffic.write(path, islice(chain([first], requests), number))
        yield path


async def _measure(subject: Subject, load: Load, path: Path, connections: int, seconds: float) -> Run:
    books = await Books.read(subject)
    costs = Costs.begin(subject)
    says_paid = traffic.PAID.values() if load.may_be_refused else ()
    told = await asyncio.to_thread(wrk.run, subject.url, path, connections, seconds, says_paid)
    spent_us = await costs.end()
    # wrk leaves without the last replies, so what was answered is between what it counted and what it sent.
    least, most = told.completed * load.items, told.sent * load.items
    unpaid_max = told.unpaid + most - least if load.may_be_refused else 0
    paid = await books.check(least, most, told.unpaid, unpaid_max)
    return Run(
        name=load.name,
        connections=connections,
        per_second=(least - told.unpaid) / told.seconds,
        p50_ms=told.p50_ms,
        p99_ms=told.p99_ms,
        p999_ms=told.p999_ms,
        max_ms=told.max_ms,
        cpu_us={name: us / paid for name, us in spent_us.items()},
        refused_per_second=told.unpaid / told.seconds,
    )


class Costs(NamedTuple):
    """The CPU time at the begin of a run."""

    subject: Subject
    spent_us: Mapping[str, float]
    client_us: float

    @classmethod
    def begin(cls, subject: Subject) -> "Costs":
        """Look at the clocks."""
        return cls(subject, cpu_us(subject.roots), client_cpu_us())

    async def end(self) -> dict[str, float]:
        """Return the CPU microseconds of each process since, when nothing is under way any more."""
        client_us = client_cpu_us() - self.client_us
        await self.subject.outcomes()
        now = cpu_us(self.subject.roots)
        return {**{name: now[name] - us for name, us in self.spent_us.items()}, CLIENT: client_us}


def client_cpu_us() -> float:
    """Return the CPU microseconds of all programs that this process ran and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1_000_000


class Books(NamedTuple):
    """What a subject has answered and holds, before a run."""

    subject: Subject
    outcomes: Mapping[str, int]
    transfers: int

    @classmethod
    async def read(cls, subject: Subject) -> "Books":
        """Read them."""
        return cls(subject, await subject.outcomes(), await subject.transfers())

    async def check(self, answered_min: int, answered_max: int, unpaid_min: int = 0, unpaid_max: int = 0) -> int:
        """Return how many credits were paid since.

        Raises VoidRunError unless as many as expected were answered, all but so many were paid, and these
        are in the books.
        """
        if self.subject.engine is None:
            return answered_min
        now = await Books.read(self.subject)
        news = {name: n - self.outcomes.get(name, 0) for name, n in now.outcomes.items()}
        answered, paid = sum(news.values()), sum(news.get(name, 0) for name in ("posted", "replayed"))
        if not answered_min <= answered <= answered_max:
            raise VoidRunError(f"{answered} answers instead of {answered_min} to {answered_max}")
        if not unpaid_min <= answered - paid <= unpaid_max:
            told = f"{unpaid_min} to {unpaid_max}"
            raise VoidRunError(f"{told} credits were told not to be paid, but by the counters: {news}")
        if not paid:
            raise VoidRunError(f"nothing was paid: {news}")
        # What was answered 'ask again' may be posted all the same.
        if not 0 <= now.transfers - self.transfers - news.get("posted", 0) <= answered - paid:
            raise VoidRunError(f"{now.transfers - self.transfers} new transfers, but by the counters: {news}")
        return paid
