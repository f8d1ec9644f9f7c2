"""What is aimed at: ratios of things measured side by side, each with a floor and a goal."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from statistics import median
from typing import Final

import msgspec

from tests.bench.findings import Findings
from tests.bench.offered import JUDGED_SHARE


class Verdict(StrEnum):
    """How a value stands to its target."""

    MISSED = "missed"
    FLOOR = "floor met"
    GOAL = "goal met"
    UNKNOWN = "not measured"


class Target(msgspec.Struct, frozen=True):
    """A value to reach, or where `lower_is_better` not to exceed."""

    name: str
    floor: float
    goal: float
    unit: str = "x"
    lower_is_better: bool = False

    def judge(self, value: float | None) -> Verdict:
        """Return how a value stands to floor and goal."""
        if value is None:
            return Verdict.UNKNOWN
        sign = -1 if self.lower_is_better else 1
        if sign * value >= sign * self.goal:
            return Verdict.GOAL
        return Verdict.FLOOR if sign * value >= sign * self.floor else Verdict.MISSED


class Row(msgspec.Struct, frozen=True):
    """A target with what was measured."""

    target: Target
    value: float | None
    verdict: Verdict


TARGETS: Final[Mapping[str, Target]] = {
    "fresh_to_pgbench": Target("new credits to pgbench TPC-B-like", 1.0, 1.5),
    "fresh_to_baseline": Target("new credits to the direct baseline", 5, 7),
    "storm_to_fresh": Target("a storm of repeats to new credits", 1.1, 1.5),
    "hot_to_uniform": Target("one hot player to all players", 0.8, 1.0),
    "bulk_to_single": Target("credits in bulks of 100 to single ones", 3, 5),
    "at_64_to_200": Target("credits at 64 connections to 200", 0.7, 0.9),
    "p99_at_half_ms": Target("p99 at half of the peak", 30, 15, "ms", lower_is_better=True),
    "idle_to_baseline": Target("latency of an idle system to the baseline's", 2.0, 1.3, lower_is_better=True),
    "gateway_mib": Target("resident memory of the gateway", 120, 80, "MiB", lower_is_better=True),
    "worker_mib": Target("resident memory of the worker", 120, 80, "MiB", lower_is_better=True),
}


def judge_all(measured: Mapping[str, float]) -> list[Row]:
    """Return a row for every target, in their order."""
    return [Row(target, value := measured.get(key), target.judge(value)) for key, target in TARGETS.items()]


def ratios(findings: Findings) -> dict[str, float]:
    """Return what was measured of each target.

    Each is the median of the rounds; a ratio is of runs of one round, because a machine that is shared may
    be another one a minute later.
    """

    def per_second(key: str, to: str) -> float:
        return _median_ratio(*([run.per_second for run in findings.runs[name]] for name in (key, to)))

    def p50(key: str, to: str) -> float:
        return _median_ratio(*([run.p50_ms for run in findings.runs[name]] for name in (key, to)))

    at_half = [run for run in findings.offered if run.share == JUDGED_SHARE]
    return {
        "fresh_to_pgbench": per_second("new at 200", "pgbench"),
        "fresh_to_baseline": per_second("new at 200", "baseline"),
        "storm_to_fresh": per_second("storm", "uniform"),
        "hot_to_uniform": per_second("hot", "uniform"),
        "bulk_to_single": per_second("bulk", "uniform"),
        "at_64_to_200": per_second("new at 64", "new at 200"),
        "p99_at_half_ms": median(run.at(0.99) for run in at_half),
        "idle_to_baseline": p50("new at 1", "baseline at 1"),
        "gateway_mib": findings.memory["gateway"].now_mib,
        "worker_mib": findings.memory["worker"].now_mib,
    }


def _median_ratio(measured: Sequence[float], to: Sequence[float]) -> float:
    return median(one / other for one, other in zip(measured, to, strict=True))
