"""What was measured of sizes, as tables for people, JSON for programs, and plots."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.bench.points import COMMIT, Point, Sizes
from tests.bench.report import table
from tests.bench.sizing import DELAYS_MS, PLAYERS, SECONDS, WORKERS, useful_workers

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


def write(sizes: Sizes, directory: Path) -> None:
    """Write everything that was measured."""
    (directory / "sizing.json").write_bytes(msgspec.json.format(msgspec.json.encode(sizes), indent=2))
    (directory / "sizing.md").write_text(markdown(sizes) + "\n")
    draw(sizes, directory)


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


def draw(sizes: Sizes, directory: Path) -> None:
    """Write the plots as PNG."""
    plt.switch_backend("agg")
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    draw_commits(sizes, axes)
    figure.savefig(directory / "commit.png", dpi=120)
    plt.close(figure)
    figure, panels = plt.subplots(1, len(sizes.defaults), figsize=(13, 4.5), layout="constrained")
    for name, panel in zip(sizes.defaults, panels, strict=True):
        draw_setting(sizes, name, panel)
    figure.suptitle(f"Credits/s by the settings, the defaults marked (RabbitMQ {sizes.machine['RabbitMQ']})")
    figure.savefig(directory / "defaults.png", dpi=120)
    plt.close(figure)


def draw_commits(sizes: Sizes, axes: Axes) -> None:
    """Draw credits a second against the delay of a commit, and how large the batches are."""
    points = sizes.of(COMMIT)
    for workers in dict.fromkeys(point.workers for point in points):
        line = [point for point in points if point.workers == workers]
        label = f"{workers} worker{'s' * (workers > 1)}"
        axes.plot([p.value for p in line], [p.run.per_second for p in line], marker="o", label=label)
        for point in line:
            axes.annotate(
                f"{point.credits_per_batch:.0f}",
                (point.value, point.run.per_second),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
            )
    axes.margins(y=0.15)
    axes.set(xlabel="delay of each commit, ms", ylabel="credits/s", ylim=(0, None))
    axes.set_xticks(DELAYS_MS)
    axes.set_title(
        f"Throughput when commits are slow, 200 connections (RabbitMQ {sizes.machine['RabbitMQ']});"
        "\nat each point: credits in a batch",
        fontsize="medium",
    )
    axes.legend(loc="lower left")
    axes.grid(visible=True, which="major", alpha=0.3)


def draw_setting(sizes: Sizes, name: str, axes: Axes) -> None:
    """Draw credits a second against the values of a setting, and what was refused if anything was."""
    points = sizes.of(name)
    values = list(dict.fromkeys(point.value for point in points))
    for connections in dict.fromkeys(point.run.connections for point in points):
        line = [point.run for point in points if point.run.connections == connections]
        axes.plot(
            values, [run.per_second for run in line], marker="o", label=f"paid, {connections} connections"
        )
        if any(run.refused_per_second for run in line):
            refused = [run.refused_per_second for run in line]
            axes.plot(values, refused, marker="x", color="C3", linestyle="--", label="told to ask again")
    default = sizes.defaults[name]
    axes.axvline(default, color="0.5", linestyle=":", label=f"default: {default}")
    axes.set_xscale("log")
    axes.set_xticks(values, map(str, values))
    axes.minorticks_off()
    axes.margins(y=0.1)
    axes.set(xlabel=name, ylabel="credits/s", ylim=(0, None))
    axes.legend(loc="best")
    axes.grid(visible=True, which="major", alpha=0.3)
