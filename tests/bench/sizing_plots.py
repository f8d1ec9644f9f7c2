"""Plots of what was measured of sizes."""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.bench.points import COMMIT, Sizes
from tests.bench.sizing import DELAYS_MS


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
        axes.plot(values, [run.per_second for run in line], marker="o", label=f"paid, {connections} connections")
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
