"""Everything that is measured, in its order, on one set of servers."""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

import msgspec

from tests.bench import closed_loop, growth, machine, offered, pgbench, subjects, traffic
from tests.bench.closed_loop import Load, Run
from tests.bench.offered import OfferedRun
from tests.bench.processes import Memory, memory
from tests.bench.subjects import Subject
from tests.bench.wrk import VoidRunError
from tests.client import send_all
from tests.servers import Servers
from tests.system import System

Tell = Callable[[str], None]
"""Takes what is being done."""


class Plan(NamedTuple):
    """How much is measured."""

    seconds: float
    """For each run."""

    rounds: int
    """So often the peak and its yardsticks take turns."""

    book_sizes: Sequence[int]
    growth_rounds: int

    @property
    def steps(self) -> int:
        """How often `Tell` is told."""
        return 18 + 3 * self.rounds + len(offered.SHARES)


SHORT: Final = Plan(seconds=4, rounds=1, book_sizes=(10_000, 100_000), growth_rounds=20)
FULL: Final = Plan(seconds=10, rounds=5, book_sizes=(10_000, 100_000, 1_000_000), growth_rounds=100)

CONNECTIONS: Final = 64
PEAK_CONNECTIONS: Final = 200
BULK_CONNECTIONS: Final = 16
"""A gateway takes 5,000 credits at a time by default, and refuses more."""

WARM_UP_SECONDS: Final = 3
SLOW_PER_SECOND_MAX: Final = 8_000
"""Of a subject with one credit in a transaction, or one connection."""


class Growth(msgspec.Struct, frozen=True):
    """Medians in books of one size."""

    transfers: int
    median_ms: Mapping[str, float]


class Findings(msgspec.Struct):
    """All that was measured."""

    machine: Mapping[str, str]
    runs: dict[str, list[Run]] = {}
    """By what was done; those of one name took turns with others."""

    offered: list[OfferedRun] = []
    memory: dict[str, Memory] = {}
    """Of the gateway and the worker, when all their runs were over."""

    growth: list[Growth] = []

    def note(self, key: str, run: Run) -> None:
        """Keep a run."""
        self.runs.setdefault(key, []).append(run)

    def per_second(self, key: str) -> float:
        """Return the median of the runs of one name."""
        return statistics.median(run.per_second for run in self.runs[key])


async def measure_all(servers: Servers, plan: Plan, tell: Tell) -> Findings:
    """Measure. Raises VoidRunError when something was not as it should be."""
    findings = Findings(await machine.describe(servers))
    async with subjects.production(servers) as (subject, system):
        tell("warming up")
        await _warm_up(subject)
        await _measure_peak(findings, plan, tell, servers, subject, system)
        await _verify(tell, system)
        await _measure_offered(findings, plan, tell, subject)
        await _measure_mixes(findings, plan, tell, servers, subject)
        await _verify(tell, system)
        findings.memory = {name: memory(subject.roots[name]) for name in ("gateway", "worker")}
        tell("a bare echo")
        async with subjects.echo(system.environment) as bare:
            load = Load("bare Starlette echo", traffic.wins(), per_second_max=60_000)
            findings.note("echo", await closed_loop.measure(bare, load, CONNECTIONS, plan.seconds))
    tell("embedded, on SQLite")
    async with subjects.embedded(servers) as alone:
        load = Load("embedded on SQLite", traffic.wins())
        findings.note("sqlite", await closed_loop.measure(alone, load, CONNECTIONS, plan.seconds))
    tell("books of several sizes")
    all_books = await growth.measured(servers.database_url, plan.book_sizes, plan.growth_rounds)
    findings.growth = [
        Growth(books.transfers, {what: statistics.median(ms) for what, ms in books.times_ms.items()})
        for books in all_books
    ]
    return findings


async def _warm_up(subject: Subject) -> None:
    """Have the gateway ask once whose each session is, as it has in a system that is up for a while."""
    await send_all(subject.url, list(traffic.one_win_of_each_session()), CONNECTIONS)
    await closed_loop.measure(subject, _new(), CONNECTIONS, WARM_UP_SECONDS)


async def _measure_peak(
    findings: Findings, plan: Plan, tell: Tell, servers: Servers, subject: Subject, system: System
) -> None:
    """Measure new wins over more and more connections, and at the peak by turns with the yardsticks."""
    tell("preparing the yardsticks")
    async with AsyncExitStack() as at_end:
        baseline = await at_end.enter_async_context(subjects.direct(servers, system.environment))
        tables = await pgbench.prepared(servers)
        await closed_loop.measure(baseline, _direct(), CONNECTIONS, WARM_UP_SECONDS)
        for connections in (1, 16, CONNECTIONS):
            tell(f"new wins, {connections} connections")
            run = await closed_loop.measure(subject, _new(), connections, plan.seconds)
            findings.note(f"new at {connections}", run)
            if connections == 1:
                tell("the direct baseline, 1 connection")
                run = await closed_loop.measure(baseline, _direct(), 1, plan.seconds)
                findings.note("baseline at 1", run)
        for _ in range(plan.rounds):
            tell(f"new wins, {PEAK_CONNECTIONS} connections")
            run = await closed_loop.measure(subject, _new(), PEAK_CONNECTIONS, plan.seconds)
            findings.note(f"new at {PEAK_CONNECTIONS}", run)
            tell("pgbench")
            findings.note("pgbench", await pgbench.measure(servers, tables, plan.seconds))
            tell(f"the direct baseline, {CONNECTIONS} connections")
            run = await closed_loop.measure(baseline, _direct(), CONNECTIONS, plan.seconds)
            findings.note("baseline", run)


async def _measure_offered(findings: Findings, plan: Plan, tell: Tell, subject: Subject) -> None:
    peak = max(findings.per_second(key) for key in findings.runs if key.startswith("new at "))
    for share in offered.SHARES:
        tell(f"{share:.0%} of the peak offered")
        findings.offered.append(await offered.measure(subject, peak, share, plan.seconds))


async def _measure_mixes(
    findings: Findings, plan: Plan, tell: Tell, servers: Servers, subject: Subject
) -> None:
    """Measure what comes beside new wins; `uniform` is what they are compared with, measured beside them."""
    mixes = {
        "uniform": _new(),
        "repeats": Load("30 % repeats", traffic.mixed(0.3)),
        "storm": Load("a storm: 90 % repeats", traffic.mixed(0.9)),
        "hot": Load("one hot player", traffic.wins(players=1)),
        "bulk": Load(
            f"bulks of {traffic.BULK_ITEMS}", traffic.bulks(), items=traffic.BULK_ITEMS, per_second_max=500
        ),
    }
    for key, load in mixes.items():
        tell(load.name)
        connections = BULK_CONNECTIONS if key == "bulk" else CONNECTIONS
        findings.note(key, await closed_loop.measure(subject, load, connections, plan.seconds))
    # Last, because Redis comes back as another process.
    tell("Redis is down")
    await asyncio.to_thread(servers.redis.stop)
    try:
        without = Subject(
            subject.url, {k: v for k, v in subject.roots.items() if k != "Redis"}, subject.engine
        )
        load = Load("Redis is down", traffic.wins())
        findings.note("no redis", await closed_loop.measure(without, load, CONNECTIONS, plan.seconds))
    finally:
        await asyncio.to_thread(servers.redis.start)


async def _verify(tell: Tell, system: System) -> None:
    tell("verifying the books")
    verified = await system.command("verify")
    if verified.returncode:
        raise VoidRunError(f"the books are not right:\n{verified.stdout}{verified.stderr}")


def _new() -> Load:
    return Load("new wins", traffic.wins())


def _direct() -> Load:
    return Load("direct baseline", traffic.wins(), per_second_max=SLOW_PER_SECOND_MAX)
