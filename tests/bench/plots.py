"""Plots of what was measured."""

from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from tests.bench.findings import Findings
from tests.bench.open_loop import QUANTILES
from tests.bench.traffic import WINDOW_SECONDS


def draw(findings: Findings, directory: Path) -> None:
    """Write the plots as PNG."""
    plt.switch_backend("agg")
    for name, plot in {"load": draw_load, "latency": draw_latency, "growth": draw_growth}.items():
        figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
        plot(findings, axes)
        axes.grid(visible=True, which="major", alpha=0.3)
        figure.savefig(directory / f"{name}.png", dpi=120)
        plt.close(figure)


def draw_load(findings: Findings, axes: Axes) -> None:
    """Draw what was answered against what was offered."""
    runs = sorted(findings.offered, key=lambda run: run.offered_per_second)
    peak = findings.peak
    axes.plot([0, peak], [0, peak], color="0.7", linestyle="--", label="all that is offered")
    offered = [run.offered_per_second for run in runs]
    axes.plot(offered, [run.per_second for run in runs], marker="o", label="answered")
    axes.axhline(peak, color="C1", label=f"peak: {peak:,.0f}/s, closed loop")
    for name, style in {"pgbench": "C2", "baseline": "C3"}.items():
        rate = findings.per_second(name)
        axes.axhline(rate, color=style, linestyle=":", label=f"{findings.runs[name][0].name}: {rate:,.0f}/s")
    axes.set(xlabel="offered credits/s", ylabel="credits/s", xlim=(0, None), ylim=(0, None))
    axes.set_title("Throughput against offered load")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def draw_latency(findings: Findings, axes: Axes) -> None:
    """Draw the latencies of each integration at the highest load, and the windows of their providers."""
    run = max(findings.offered, key=lambda run: run.share)
    shown = [n for n, quantile in enumerate(QUANTILES) if quantile >= 0.5]
    for color, (name, latencies_ms) in enumerate(run.by_integration_ms.items()):
        axes.plot(range(len(shown)), [latencies_ms[n] for n in shown], marker="o", color=f"C{color}", label=name)
    for seconds in sorted(set(WINDOW_SECONDS.values())):
        waiting = ", ".join(name for name, window in WINDOW_SECONDS.items() if window == seconds)
        axes.axhline(seconds * 1_000, color="C3", linestyle="--")
        axes.annotate(f"window of {waiting}: {seconds:g} s", (0, seconds * 1_000), va="bottom")
    axes.set_yscale("log")
    axes.set_xticks(range(len(shown)), [f"p{QUANTILES[n] * 100:g}" if QUANTILES[n] < 1 else "max" for n in shown])
    axes.set(ylabel="ms from when it was due", ylim=(None, 20_000))
    axes.set_title(f"Latency at {run.share:.0%} of the peak, {run.offered_per_second:,.0f} credits/s")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def draw_growth(findings: Findings, axes: Axes) -> None:
    """Draw what calls of the ledger take in books of several sizes."""
    sizes = [books.transfers for books in findings.growth]
    for what in findings.growth[0].median_ms:
        axes.plot(sizes, [books.median_ms[what] for books in findings.growth], marker="o", label=what)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="transfers in the books", ylabel="median ms")
    axes.set_title("What a call of the ledger takes as its books grow")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
