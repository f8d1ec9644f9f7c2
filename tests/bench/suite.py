"""Everything that is measured, in its order, on one set of servers."""

import asyncio
import statistics
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from simulator.client import send_all
from tests.bench import closed_loop, growth, machine, offered, pgbench, subjects, traffic
from tests.bench.closed_loop import Load
from tests.bench.findings import Findings, Growth, Plan
from tests.bench.processes import memory
from tests.bench.subjects import Subject
from tests.bench.wrk import VoidRunError
from tests.support.servers import Servers
from tests.support.system import System

Tell = Callable[[str], None]
"""Takes what is being done."""

CONNECTIONS: Final = 64
PEAK_CONNECTIONS: Final = 200
BULK_CONNECTIONS: Final = 16
"""A gateway takes 5,000 credits at a time by default, and refuses more."""

WARM_UP_SECONDS: Final = 3
BASELINE_PER_SECOND_MAX: Final = 8_000
BULKS_PER_SECOND_MAX: Final = 200
ECHOES_PER_SECOND_MAX: Final = 40_000


async def measure_all(servers: Servers, plan: Plan, tell: Tell) -> Findings:
    """Measure. Raises VoidRunError when something was not as it should be."""
    suite = Suite(servers, plan, tell, Findings(await machine.describe(servers)))
    async with subjects.production(servers) as (subject, system):
        await suite.warm_up(subject)
        await suite.measure_peak(subject, system)
        await suite.verify(system)
        await suite.measure_offered(subject)
        await suite.measure_mixes(subject)
        await suite.measure_without_redis(subject)
        await suite.verify(system)
        suite.findings.memory = {name: memory(subject.roots[name]) for name in ("gateway", "worker")}
        await suite.measure_echo(system)
    await suite.measure_embedded()
    await suite.measure_growth()
    return suite.findings


@dataclass(frozen=True, slots=True)
class Suite:
    """What is measured, and what was found so far."""

    servers: Servers
    plan: Plan
    tell: Tell
    findings: Findings

    async def warm_up(self, subject: Subject) -> None:
        """Have the gateway ask once whose each session is, as one has that is up for a while."""
        self.tell("warming up")
        await send_all(subject.url, list(traffic.one_win_of_each_session()), CONNECTIONS)
        await closed_loop.measure(subject, _new(), CONNECTIONS, WARM_UP_SECONDS)

    async def run(self, key: str, subject: Subject, load: Load, connections: int = CONNECTIONS) -> None:
        """Run a load in a closed loop, and keep what was found under a name."""
        self.tell(f"{load.name}, {connections} connection{'s' * (connections > 1)}")
        run = await closed_loop.measure(subject, load, connections, self.plan.seconds)
        self.findings.runs.setdefault(key, []).append(run)

    async def measure_peak(self, subject: Subject, system: System) -> None:
        """Measure new wins over more and more connections, and at the peak by turns with the yardsticks.

        Half of a round's peak is offered in that round, twice: its tail is the longest where the machine's
        disk, which is shared too, stops for a moment.
        """
        self.tell("preparing the yardsticks")
        tables = await pgbench.prepared(self.servers)
        async with subjects.direct(self.servers, system.environment) as baseline:
            await closed_loop.measure(baseline, _direct(), CONNECTIONS, WARM_UP_SECONDS)
            await self.run("new at 16", subject, _new(), 16)
            for _ in range(self.plan.rounds):
                await self.run("new at 1", subject, _new(), 1)
                await self.run("baseline at 1", baseline, _direct(), 1)
                for connections in (CONNECTIONS, PEAK_CONNECTIONS):
                    await self.run(f"new at {connections}", subject, _new(), connections)
                peak_per_second = self.findings.runs[f"new at {PEAK_CONNECTIONS}"][-1].per_second
                for _ in range(2):
                    await self.offer(subject, offered.JUDGED_SHARE, peak_per_second)
                await self._run_pgbench(tables)
                await self.run("baseline", baseline, _direct())

    async def _run_pgbench(self, tables: str) -> None:
        self.tell("pgbench")
        run = await pgbench.measure(self.servers, tables, self.plan.seconds)
        self.findings.runs.setdefault("pgbench", []).append(run)

    async def measure_offered(self, subject: Subject) -> None:
        """Offer the other shares of the peak."""
        for share in offered.SHARES:
            if share != offered.JUDGED_SHARE:
                await self.offer(subject, share, self.findings.peak)

    async def offer(self, subject: Subject, share: float, peak_per_second: float) -> None:
        """Offer a share of a peak, answered or not."""
        self.tell(f"{share:.0%} of the peak offered")
        run = await offered.measure(subject, peak_per_second, share, self.plan.seconds)
        self.findings.offered.append(run)

    async def measure_mixes(self, subject: Subject) -> None:
        """Measure what comes beside new wins, by turns with what it is compared with: `uniform`."""
        items = traffic.BULK_ITEMS
        await self.run("repeats", subject, Load("30 % repeats", traffic.mixed(0.3)))
        for _ in range(self.plan.rounds):
            await self.run("uniform", subject, _new())
            await self.run("storm", subject, Load("a storm: 90 % repeats", traffic.mixed(0.9)))
            await self.run("hot", subject, Load("one hot player", traffic.wins(players=1)))
            bulks = Load(f"bulks of {items}", traffic.bulks(), items, BULKS_PER_SECOND_MAX)
            await self.run("bulk", subject, bulks, BULK_CONNECTIONS)

    async def measure_without_redis(self, subject: Subject) -> None:
        """Measure with Redis down. It comes back as another process, of which the subject does not know."""
        roots = {name: pid for name, pid in subject.roots.items() if name != "Redis"}
        await asyncio.to_thread(self.servers.redis.stop)
        async with AsyncExitStack() as at_end:
            at_end.push_async_callback(asyncio.to_thread, self.servers.redis.start)
            without = Subject(subject.url, subject.operations_url, roots, subject.engine)
            await self.run("no redis", without, Load("Redis is down", traffic.wins()))

    async def verify(self, system: System) -> None:
        """Prove the books. Raises VoidRunError."""
        self.tell("verifying the books")
        verified = await system.command("verify")
        if verified.returncode:
            raise VoidRunError(f"the books are not right:\n{verified.stdout}{verified.stderr}")

    async def measure_echo(self, system: System) -> None:
        """Measure what HTTP alone costs."""
        async with subjects.echo(system.environment) as bare:
            load = Load("bare Starlette echo", traffic.wins(), per_second_max=ECHOES_PER_SECOND_MAX)
            await self.run("echo", bare, load)

    async def measure_embedded(self) -> None:
        """Measure a gateway alone."""
        async with subjects.embedded(self.servers) as alone:
            await self.run("sqlite", alone, Load("embedded on SQLite", traffic.wins()))

    async def measure_growth(self) -> None:
        """Measure single calls of the ledger in books of several sizes."""
        self.tell("books of several sizes")
        all_books = await growth.measured(
            self.servers.database_url, self.plan.book_sizes, self.plan.growth_rounds, tell=lambda _: None
        )
        for books in all_books:
            medians = {what: statistics.median(ms) for what, ms in books.times_ms.items()}
            self.findings.growth.append(Growth(books.transfers, medians))


def _new() -> Load:
    return Load("new wins", traffic.wins())


def _direct() -> Load:
    return Load("direct baseline", traffic.wins(), per_second_max=BASELINE_PER_SECOND_MAX)
