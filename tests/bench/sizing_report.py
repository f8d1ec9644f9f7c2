"""What was measured of sizes, as tables for people and JSON for programs."""

from collections.abc import Sequence
from typing import Final

import msgspec

from tests.bench.points import COMMIT, Point, Sizes
from tests.bench.report import table
from tests.bench.sizing import PLAYERS, SECONDS, WORKERS, useful_workers

NOTES: Final = f"""\
New wins in a closed loop, {SECONDS:.0f} s a run; medians where runs took turns. Four providers in turn,
{PLAYERS:,} players, one gateway, and one worker where no other number stands; everything else as by default.

- *Slow commits*: on the measured books each statement that inserts transfers, which is one a batch, sleeps
  for so long before its commit, its locks held, as with a replicated or a distant database.
- *A batch*: credits in one transaction, counted in the books.
- *CPU us* is what one paid credit costs, the client's not added; then by process, all workers as one.
- *Refused*: told to ask again, because `in_flight_max` credits were waiting. Only what was paid is counted
  as credits/s. Latencies are of all replies, those that refuse too.
- Every run is held against the books, as all others are."""

ONE_IS_ACTIVE: Final = (
    "One worker only: on RabbitMQ before 4, here {version}, one worker is active on all shards and the others"
    " stand by, so more of them don't share the work. On 4 they do."
)


def json(sizes: Sizes) -> bytes:
    """Return everything that was measured."""
    return msgspec.json.format(msgspec.json.encode(sizes), indent=2)


def markdown(sizes: Sizes) -> str:
    """Return the report."""
    version = sizes.machine["RabbitMQ"]
    alone = useful_workers(version) != WORKERS
    return "\n\n".join(
        [
            "# What a credit costs as things grow",
            NOTES,
            table(("", ""), sizes.machine.items()),
            f"## Slow commits, by how many ms each is delayed (RabbitMQ {version})",
            points_table(sizes.of(COMMIT)),
            *([ONE_IS_ACTIVE.format(version=version)] if alone else []),
            *(
                f"## `{name}`, by default {default}\n\n{points_table(sizes.of(name))}"
                for name, default in sizes.defaults.items()
            ),
        ]
    )


def points_table(points: Sequence[Point]) -> str:
    """Return a line for each point."""
    processes = list(dict.fromkeys(name for point in points for name in point.cpu_us))
    heads = (
        "",
        "workers",
        "connections",
        "credits/s",
        "refused/s",
        "a batch",
        "batches/s",
        "p50 ms",
        "p99 ms",
    )
    return table(
        (*heads, "CPU us", *processes),
        (
            (
                str(point.value),
                str(point.workers),
                str(point.run.connections),
                f"{point.run.per_second:,.0f}",
                f"{point.run.refused_per_second:,.0f}",
                f"{point.credits_per_batch:.1f}",
                f"{point.batches_per_second:.0f}",
                f"{point.run.p50_ms:.1f}",
                f"{point.run.p99_ms:.1f}",
                f"{point.run.all_cpu_us:.0f}",
                *(f"{point.cpu_us[name]:.0f}" for name in processes),
            )
            for point in points
        ),
    )
