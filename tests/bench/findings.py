"""How much is measured, and all that was."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from tests.bench.closed_loop import Run
from tests.bench.offered import SHARES, OfferedRun
from tests.bench.processes import Memory


class Plan(NamedTuple):
    """How much is measured."""

    seconds: float
    """For each run."""

    rounds: int
    """So often what is compared takes turns."""

    book_sizes: Sequence[int]
    """In transfers, smallest first."""

    growth_rounds: int

    @property
    def steps(self) -> int:
        """How many steps there are to tell of."""
        return 10 + 12 * self.rounds + len(SHARES)


SHORT: Final = Plan(seconds=2, rounds=3, book_sizes=(10_000, 100_000), growth_rounds=20)
FULL: Final = Plan(seconds=10, rounds=3, book_sizes=(10_000, 100_000, 1_000_000), growth_rounds=100)


class Growth(msgspec.Struct, frozen=True):
    """What calls of the ledger take in books of one size."""

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

    @property
    def peak(self) -> float:
        """The most new credits a second, over any number of connections."""
        return max(self.per_second(key) for key in self.runs if key.startswith("new at "))

    def per_second(self, key: str) -> float:
        """Return the median of the runs of one name."""
        return statistics.median(run.per_second for run in self.runs[key])
