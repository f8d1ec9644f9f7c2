"""What was measured at each size, and what stands for it where it was measured by turns."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from tests.bench.closed_loop import Run

COMMIT: Final = "commit"
"""What a point is of whose value is the delay of a commit, in ms; others are of the setting they name."""


class Point(msgspec.Struct, frozen=True):
    """A run at one size."""

    of: str
    value: int
    workers: int
    run: Run
    credits_per_batch: float

    @property
    def batches_per_second(self) -> float:
        """How many transactions of all workers there were a second."""
        return self.run.per_second / self.credits_per_batch

    @property
    def cpu_us(self) -> dict[str, float]:
        """What a credit costs, by process, all workers as one."""
        workers = sum(us for name, us in self.run.cpu_us.items() if name.startswith("worker"))
        others = {name: us for name, us in self.run.cpu_us.items() if not name.startswith("worker")}
        return {"gateway": others.pop("gateway", 0.0), "worker": workers, **others}


class Sizes(msgspec.Struct, frozen=True):
    """All that was measured of sizes."""

    machine: Mapping[str, str]
    defaults: Mapping[str, int]
    """The settings' default values, by name."""

    points: Sequence[Point]
    """Every run, those of one size several times where they took turns."""

    def of(self, name: str) -> list[Point]:
        """Return one point for each size of one name."""
        return medians(point for point in self.points if point.of == name)


def medians(points: Iterable[Point]) -> list[Point]:
    """Return one point for each size, in the order in which they were first measured, its numbers medians."""
    by_size: dict[tuple[str, int, int, int], list[Point]] = {}
    for point in points:
        key = (point.of, point.value, point.workers, point.run.connections)
        by_size.setdefault(key, []).append(point)
    return [_median(of_one_size) for of_one_size in by_size.values()]


def _median(points: Sequence[Point]) -> Point:
    runs = [point.run for point in points]
    run = msgspec.structs.replace(
        runs[0],
        cpu_us={name: statistics.median(run.cpu_us[name] for run in runs) for name in runs[0].cpu_us},
        **{name: statistics.median(getattr(run, name) for run in runs) for name in _MEASURED},
    )
    batch = statistics.median(point.credits_per_batch for point in points)
    return msgspec.structs.replace(points[0], run=run, credits_per_batch=batch)


_MEASURED: Final = ("per_second", "refused_per_second", "p50_ms", "p99_ms", "p999_ms", "max_ms")
