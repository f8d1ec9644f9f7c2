"""What becomes of wins when three times as many come as can be paid, and when many come again all at once.

In two situations: as it is, where on a small machine the gateway's processor is the bottleneck, and with
commits that take longer, where the ledger is. The peak is measured first. Then a client in a process of its
own goes on sending, whatever is answered. What it was told must be borne out by the books.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.ledger_client.concurrency import CALLERS_MAX
from simulator.client import send_all
from tests.bench import closed_loop, machine, overload_findings, subjects, traffic
from tests.bench.closed_loop import CLIENT, Load, requests_file
from tests.bench.outcomes import Fate, Phase, Told
from tests.bench.overload_findings import CALM, CALM_AGAIN, STORM, SURGE, MemoryUse, Overload
from tests.bench.processes import cpu_us, memory
from tests.bench.sizing import books_of, delay_commits
from tests.bench.subjects import Subject
from tests.bench.suite import Tell
from tests.bench.wrk import VoidRunError
from tests.support.paths import ROOT
from tests.support.servers import Servers
from tests.support.system import System

SITUATIONS: Final = {"as it is": 0, "commits delayed by 50 ms": 50}
"""By how many ms each commit is delayed."""

SECONDS: Final = {CALM: 5, SURGE: 60, CALM_AGAIN: 10, STORM: 15}
"""Of each phase."""

SURGE_SHARE: Final = 3.0
CALM_SHARE: Final = 0.5
"""Of the peak, in the surge and at any other time."""

AT_ONCE_SHARE: Final = 3.0
"""Of what is paid in a second at the peak: so many come all at once when the storm begins."""

WARM_UP_CONNECTIONS: Final = 64
PEAK_CONNECTIONS: Final = (CALLERS_MAX // 2, CALLERS_MAX)
"""As many as a gateway lets wait: more would be turned away, and come again at once."""

PEAK_SECONDS: Final = 10.0
PER_SECOND_MAX: Final = 8_000
SAMPLE_SECONDS: Final = 1.0

SETTLED_WITHIN_SECONDS: Final = 60.0
"""For the client after its last phase, and then for what is under way in the system."""

STEPS: Final = 5 * len(SITUATIONS) + 1
"""How many steps there are to tell of."""


class Overloads(msgspec.Struct, frozen=True):
    """All that was measured of overload."""

    machine: Mapping[str, str]
    measured: Sequence[Overload]


async def measure_overloads(servers: Servers, tell: Tell) -> Overloads:
    """Measure each situation, on a system of its own. Raises VoidRunError when the books say otherwise."""
    named = await machine.describe(servers)
    return Overloads(named, [await _measure(servers, tell, *of) for of in SITUATIONS.items()])


async def _measure(servers: Servers, tell: Tell, situation: str, delay_ms: int) -> Overload:
    tell(f"{situation}: starting a system")
    async with subjects.production(servers) as (subject, system):
        await send_all(subject.url, list(traffic.one_win_of_each_session()), WARM_UP_CONNECTIONS)
        await delay_commits(books_of(subject), delay_ms)
        tell(f"{situation}: its peak")
        peak = max([await _peak(subject, connections) for connections in PEAK_CONNECTIONS])
        run = OverloadRun(subject, system, situation, peak, phases_at(peak))
        return await run.measure(tell)


async def _peak(subject: Subject, connections: int) -> float:
    load = Load("new wins", traffic.wins(), 1, PER_SECOND_MAX, may_be_refused=True)
    return (await closed_loop.measure(subject, load, connections, PEAK_SECONDS)).per_second


def phases_at(peak_per_second: float) -> list[Phase]:
    """Return the phases for a system with this peak."""
    steady = dict.fromkeys(SECONDS, peak_per_second * CALM_SHARE) | {SURGE: peak_per_second * SURGE_SHARE}
    at_once = {STORM: int(peak_per_second * AT_ONCE_SHARE)}
    return [Phase(name, s, steady[name], at_once.get(name, 0)) for name, s in SECONDS.items()]


def hold_against_books(wins: int, told_paid: int, transfers: int) -> None:
    """Raise VoidRunError if a win that was told as paid is not in the books, or one is there twice."""
    if not told_paid <= transfers <= wins:
        raise VoidRunError(f"{told_paid} of {wins} wins were told as paid, {transfers} are in the books")


class Sample(NamedTuple):
    """What processes had used at an instant of the monotonic clock."""

    at: float
    cpu_us: Mapping[str, float]
    mib: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class OverloadRun:
    """A system whose peak is known, and what is offered to it."""

    subject: Subject
    system: System
    situation: str
    peak_per_second: float
    phases: Sequence[Phase]
    samples: list[Sample] = field(default_factory=list)

    async def measure(self, tell: Tell) -> Overload:
        """Offer it, and hold what was told against the books."""
        wins, seconds = sum(phase.wins for phase in self.phases), sum(phase.seconds for phase in self.phases)
        transfers_before = await self.subject.transfers()
        tell(f"{self.situation}: making {wins:,} wins")
        with requests_file(traffic.wins(), wins) as path:
            tell(f"{self.situation}: {seconds:.0f} s around a surge of {SURGE_SHARE:g} x the peak")
            self._sample({})
            told = await self._run_client(path, seconds)
        tell(f"{self.situation}: verifying the books")
        transfers = await self._settled() - transfers_before
        self._sample({})
        told_paid = sum(one.fate is Fate.PAID for one in told.ended)
        hold_against_books(wins, told_paid, transfers)
        verified = await self.system.command("verify")
        if verified.returncode:
            raise VoidRunError(f"the books are not right:\n{verified.stdout}{verified.stderr}")
        return self._found(told, wins, told_paid, transfers)

    def _found(self, told: Told, wins: int, told_paid: int, transfers: int) -> Overload:
        return Overload(
            situation=self.situation,
            peak_per_second=self.peak_per_second,
            offered_per_second=next(p.per_second for p in self.phases if p.name == SURGE),
            client_late_ms_max=told.late_ms_max,
            seconds=overload_findings.by_second(told.ended, self.phases),
            surge=overload_findings.in_surge(told.ended, self.phases),
            storm=overload_findings.in_storm(told.ended, self.phases),
            cpu_share=self._cpu_share(told.began),
            memory={name: self._memory_use(name) for name in self.samples[0].mib},
            wins=wins,
            told_paid=told_paid,
            transfers=transfers,
            lost=sum(one.fate is Fate.LOST for one in told.ended),
        )

    async def _run_client(self, path: Path, seconds: float) -> Told:
        """Run the client; sample meanwhile what it and the processes of the system use."""
        phases = msgspec.json.encode(self.phases).decode()
        command = (sys.executable, "-m", "tests.bench.surge", self.subject.url, str(path), phases)
        pipe = asyncio.subprocess.PIPE
        client = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=pipe, stderr=pipe)
        told = asyncio.create_task(client.communicate())
        deadline = time.monotonic() + seconds + SETTLED_WITHIN_SECONDS
        try:
            while not told.done():
                if time.monotonic() > deadline:
                    raise VoidRunError("some of what came all at once was still not told as paid")
                self._sample({CLIENT: client.pid})
                await asyncio.wait([told], timeout=SAMPLE_SECONDS)
        finally:
            if client.returncode is None:
                client.kill()
            stdout, stderr = await told
        if client.returncode:
            raise VoidRunError(f"the surge client failed: {stderr.decode().strip()[-1_000:]}")
        return msgspec.msgpack.decode(stdout, type=Told)

    def _sample(self, client: Mapping[str, int]) -> None:
        roots = self.subject.roots
        mib = {name: memory(roots[name]).now_mib for name in ("gateway", "worker")}
        self.samples.append(Sample(time.monotonic(), cpu_us({**roots, **client}), mib))

    async def _settled(self) -> int:
        """Return how many transfers the books hold when nothing is under way any more."""
        try:
            async with asyncio.timeout(SETTLED_WITHIN_SECONDS):
                await self.subject.outcomes()
                before, now = -1, await self.subject.transfers()
                while now != before:
                    # What nobody waits for any more may still be on its way to the worker.
                    await asyncio.sleep(1)
                    before, now = now, await self.subject.transfers()
                return now
        except TimeoutError:
            raise VoidRunError(f"after {SETTLED_WITHIN_SECONDS:.0f} s wins were still under way") from None

    def _cpu_share(self, began: float) -> dict[str, float]:
        """Return how much of one processor each process used in the surge."""
        begin, end = (began + at for at in overload_findings.span(self.phases, SURGE))
        within = [sample for sample in self.samples if begin <= sample.at <= end]
        first, last = within[0], within[-1]
        took_us = (last.at - first.at) * 1_000_000
        return {name: (us - first.cpu_us[name]) / took_us for name, us in last.cpu_us.items()}

    def _memory_use(self, name: str) -> MemoryUse:
        mib = [sample.mib[name] for sample in self.samples]
        return MemoryUse(mib[0], max(mib), mib[-1])
