"""A plot of what was measured of overload."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter

from tests.bench.overload import Overloads
from tests.bench.overload_findings import Overload, Second


def draw(overloads: Overloads, directory: Path) -> None:
    """Write the plot as PNG: a column for each situation."""
    plt.switch_backend("agg")
    measured = overloads.measured
    figure, panels = plt.subplots(
        2, len(measured), figsize=(6.5 * len(measured), 7.5), sharex=True, sharey="row", layout="constrained"
    )
    for overload, counts, latency in zip(measured, *panels, strict=True):
        draw_counts(overload, counts)
        draw_latency(overload.seconds, latency)
        _name_phases(overload.seconds, counts)
        counts.set_title(f"{overload.situation}: peak {overload.peak_per_second:,.0f} credits/s")
    # Both share an axis, which ends above the highest bar of either and the phases' names.
    panels[0, 0].set_ylim(0, 1.2 * max(_due(second) for overload in measured for second in overload.seconds))
    for axes in panels[:, 0]:
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    for axes in panels[:, -1]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    for axes in panels.flat:
        axes.label_outer()
    figure.suptitle("What became of wins, by the second in which they were due")
    figure.savefig(directory / "overload.png", dpi=120)
    plt.close(figure)


def draw_counts(overload: Overload, axes: Axes) -> None:
    """Draw what became of the wins of each second, one on the other, and the peak."""
    seconds = overload.seconds
    became = {
        "paid": ([s.paid for s in seconds], "C2"),
        "told to ask again": ([s.ask_again for s in seconds], "C1"),
        "missed or lost": ([s.missed + s.lost for s in seconds], "C3"),
    }
    below = [0] * len(seconds)
    for label, (counts, color) in became.items():
        axes.bar(range(len(seconds)), counts, 1.0, bottom=below, align="edge", color=color, label=label)
        below = [under + count for under, count in zip(below, counts, strict=True)]
    axes.axhline(overload.peak_per_second, color="black", linestyle="--", label="peak")
    axes.set(ylabel="credits/s", xlim=(0, len(seconds)))
    _divide_phases(seconds, axes)


def draw_latency(seconds: Sequence[Second], axes: Axes) -> None:
    """Draw the latencies of the wins of each second, where there are any."""
    for label, style, values in (
        ("paid, p50", "C2-", [s.paid_p50_ms for s in seconds]),
        ("paid, p99", "C0-", [s.paid_p99_ms for s in seconds]),
        ("ask again, p99", "C1:", [s.ask_again_p99_ms for s in seconds]),
    ):
        middles = [number + 0.5 for number in range(len(seconds))]
        axes.plot(middles, [value or float("nan") for value in values], style, label=label)
    axes.set_yscale("log")
    axes.set(xlabel="seconds", ylabel="ms from when it was due")
    axes.grid(visible=True, which="major", alpha=0.3)
    _divide_phases(seconds, axes)


def _due(second: Second) -> int:
    return second.paid + second.ask_again + second.missed + second.lost


def _begins(seconds: Sequence[Second]) -> dict[int, str]:
    """Return the phases' names by their first seconds."""
    names = [second.phase for second in seconds]
    return {names.index(name): name for name in names}


def _divide_phases(seconds: Sequence[Second], axes: Axes) -> None:
    for begin in _begins(seconds):
        axes.axvline(begin, color="0.6", linewidth=0.8)


def _name_phases(seconds: Sequence[Second], axes: Axes) -> None:
    """Write the phases' names along the top, by turns in two lines: some are longer than their phases."""
    for turn, (begin, phase) in enumerate(_begins(seconds).items()):
        axes.annotate(
            phase,
            (begin, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(3, -3 - turn % 2 * 12),
            textcoords="offset points",
            va="top",
            fontsize="small",
        )
