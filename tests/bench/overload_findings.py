"""What became of wins in an overload, second by second, and the few numbers that say it."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec

from tests.bench import open_loop
from tests.bench.outcomes import Ended, Fate, Phase

CALM: Final = "calm"
SURGE: Final = "surge"
CALM_AGAIN: Final = "calm again"
STORM: Final = "storm"
"""The phases' names."""

EDGE_SECONDS: Final = (2, 3)
"""So much of the surge, at its begin and its end, does not count for the goodput: queues fill and drain."""

NORMAL_MS: Final = 250.0
"""The p99 of a normal second is at most this, or twice that of the calm before, whichever is more."""


class Second(msgspec.Struct, frozen=True):
    """What became of the wins that were due in one second."""

    phase: str
    paid: int
    """Told as paid within the provider's window."""

    ask_again: int
    missed: int
    lost: int
    paid_p50_ms: float
    """Latencies, from when a win was due; 0 where there is none."""

    paid_p99_ms: float
    ask_again_p99_ms: float

    def is_normal(self, p99_ms_max: float) -> bool:
        """Return whether all were paid, and nearly all soon."""
        return self.paid > 0 and not self.ask_again + self.missed + self.lost and self.paid_p99_ms <= p99_ms_max


class InSurge(msgspec.Struct, frozen=True):
    """What became of the wins that were due in the surge."""

    wins: int
    goodput_per_second: float
    """Told as paid in their window, without EDGE_SECONDS."""

    ask_again_share: float
    missed_share: float
    never_sent_share: float
    """Those of the missed that found no connection free in their window; they are in `missed_share` too."""

    lost_share: float
    ask_again_p50_ms: float
    ask_again_p99_ms: float
    ask_again_max_ms: float
    paid_p50_ms: float
    paid_p99_ms: float
    seconds_to_normal: int | None
    """After its end, until every second of the calm after it was normal; None if the last one was not."""


class InStorm(msgspec.Struct, frozen=True):
    """What became of wins that came all at once, beside others, and came again until they were paid."""

    at_once: int
    attempts: int
    """So often they were sent in all."""

    seconds_until_paid: float
    """Until the last of them was told as paid."""

    goodput_per_second: float
    """Told as paid in that time, the steady ones beside them too."""

    seconds_to_normal: int | None
    """From its begin, as after the surge."""


class MemoryUse(msgspec.Struct, frozen=True):
    """Resident memory of a process in MiB."""

    before_mib: float
    highest_mib: float
    after_mib: float


class Overload(msgspec.Struct, frozen=True):
    """What was measured of a system in one situation."""

    situation: str
    peak_per_second: float
    """Paid in a closed loop, before."""

    offered_per_second: float
    """In the surge."""

    client_late_ms_max: float
    seconds: Sequence[Second]
    surge: InSurge
    storm: InStorm
    cpu_share: Mapping[str, float]
    """Of one processor, by process, in the surge."""

    memory: Mapping[str, MemoryUse]
    wins: int
    told_paid: int
    transfers: int
    """So many of the wins were in the books at the end."""

    lost: int
    """Attempts whose connection was refused or reset."""

    def of_peak(self, per_second: float) -> float:
        """Return a rate as part of the peak."""
        return per_second / self.peak_per_second


def by_second(ended: Iterable[Ended], phases: Sequence[Phase]) -> list[Second]:
    """Return what became of the wins by the second in which each was due, the phases' seconds only."""
    names = [phase.name for phase in phases for _ in range(int(phase.seconds))]
    latencies: list[dict[Fate, list[float]]] = [{fate: [] for fate in Fate} for _ in names]
    for one in ended:
        if one.due_seconds < len(names):
            latencies[int(one.due_seconds)][one.fate].append(one.latency_ms)
    return [_second(name, of_fate) for name, of_fate in zip(names, latencies, strict=True)]


def _second(phase: str, latencies_ms: Mapping[Fate, Sequence[float]]) -> Second:
    paid, ask_again = latencies_ms[Fate.PAID], latencies_ms[Fate.ASK_AGAIN]
    return Second(
        phase=phase,
        paid=len(paid),
        ask_again=len(ask_again),
        missed=len(latencies_ms[Fate.MISSED]),
        lost=len(latencies_ms[Fate.LOST]),
        paid_p50_ms=quantile(paid, 0.5),
        paid_p99_ms=quantile(paid, 0.99),
        ask_again_p99_ms=quantile(ask_again, 0.99),
    )


def in_surge(ended: Sequence[Ended], phases: Sequence[Phase]) -> InSurge:
    """Return what became of the wins in the surge."""
    begin, end = span(phases, SURGE)
    within = [one for one in ended if begin <= one.due_seconds < end]
    of_fate = {fate: [one.latency_ms for one in within if one.fate is fate] for fate in Fate}
    paid_ms, ask_again_ms = of_fate[Fate.PAID], of_fate[Fate.ASK_AGAIN]
    first, last = begin + EDGE_SECONDS[0], end - EDGE_SECONDS[1]
    counted = sum(one.fate is Fate.PAID and first <= one.due_seconds < last for one in within)
    return InSurge(
        wins=len(within),
        goodput_per_second=counted / (last - first),
        ask_again_share=len(ask_again_ms) / len(within),
        missed_share=len(of_fate[Fate.MISSED]) / len(within),
        never_sent_share=sum(not one.had_connection for one in within) / len(within),
        lost_share=len(of_fate[Fate.LOST]) / len(within),
        ask_again_p50_ms=quantile(ask_again_ms, 0.5),
        ask_again_p99_ms=quantile(ask_again_ms, 0.99),
        ask_again_max_ms=quantile(ask_again_ms, 1),
        paid_p50_ms=quantile(paid_ms, 0.5),
        paid_p99_ms=quantile(paid_ms, 0.99),
        seconds_to_normal=_seconds_to_normal(ended, phases, CALM_AGAIN),
    )


def in_storm(ended: Sequence[Ended], phases: Sequence[Phase]) -> InStorm:
    """Return what became of the wins in the storm, all of which were told as paid in the end."""
    begin, _ = span(phases, STORM)
    at_once = [one for one in ended if one.at_once]
    until = max(_told_seconds(one) for one in at_once)
    paid = sum(one.fate is Fate.PAID and begin <= _told_seconds(one) <= until for one in ended)
    return InStorm(
        at_once=sum(one.fate is Fate.PAID for one in at_once),
        attempts=len(at_once),
        seconds_until_paid=until - begin,
        goodput_per_second=paid / (until - begin),
        seconds_to_normal=_seconds_to_normal(ended, phases, STORM),
    )


def _told_seconds(one: Ended) -> float:
    return one.due_seconds + one.latency_ms / 1_000


def _seconds_to_normal(ended: Iterable[Ended], phases: Sequence[Phase], name: str) -> int | None:
    """Return after how many seconds of a phase all the others were normal, if its last one was."""
    seconds, (begin, end) = by_second(ended, phases), span(phases, CALM)
    calm_ms = [one.latency_ms for one in ended if begin <= one.due_seconds < end and one.fate is Fate.PAID]
    p99_ms_max = max(2 * quantile(calm_ms, 0.99), NORMAL_MS)
    of_phase = [second for second in seconds if second.phase == name]
    after = max((n for n, s in enumerate(of_phase, 1) if not s.is_normal(p99_ms_max)), default=0)
    return after if after < len(of_phase) else None


def span(phases: Sequence[Phase], name: str) -> tuple[float, float]:
    """Return when a phase begins and ends, in seconds from the first one's begin."""
    ends = dict(zip((p.name for p in phases), accumulate(p.seconds for p in phases), strict=True))
    (seconds,) = (phase.seconds for phase in phases if phase.name == name)
    return ends[name] - seconds, ends[name]


def quantile(values: Sequence[float], part: float) -> float:
    """Return the least value that so large a part does not exceed; 0 of none."""
    return open_loop.quantile(sorted(values), part) if values else 0.0
