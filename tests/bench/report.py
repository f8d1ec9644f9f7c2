"""What was measured, as tables for people and JSON for programs."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tests.bench.open_loop import QUANTILES
from tests.bench.suite import Findings
from tests.bench.targets import Row

NOTES: Final = """\
Everything runs on the machine named below: servers, gateway, worker, and the load client, which shares the
processors with them. PostgreSQL syncs every commit. One gateway, one worker, default settings.
Closed loop: each connection sends its next request when it has its reply (wrk). Offered load: wins come by
chance, and the latency of each counts from the instant at which it was due. A win is counted only if it was
paid: after each run the answers by the gateway's counters, what the client counted, and the transfers in the
books are held against each other, and in the end the books are verified.
CPU is what one credit costs, in microseconds; it stays comparable on a machine that others use too."""


def markdown(findings: Findings, rows: Sequence[Row]) -> str:
    """Return the report."""
    return "\n\n".join(
        [
            "# What a credit costs, end to end",
            NOTES,
            table(("", ""), findings.machine.items()),
            "## Targets",
            targets_table(rows),
            "## Closed loop",
            runs_table(findings),
            "## Offered load",
            offered_table(findings),
            "## Resident memory, in MiB",
            table(
                ("process", "at the end", "at its peak"),
                ((k, f"{m.now_mib:.0f}", f"{m.peak_mib:.0f}") for k, m in findings.memory.items()),
            ),
            "## The books' size: medians in ms",
            growth_table(findings),
        ]
    )


def targets_table(rows: Sequence[Row]) -> str:
    """Return each ratio beside its floor and goal."""
    return table(
        ("target", "measured", "floor", "goal", ""),
        (
            (
                row.target.name,
                "-" if row.value is None else f"{row.value:.2f} {row.target.unit}",
                f"{row.target.floor:g}",
                f"{row.target.goal:g}",
                row.verdict,
            )
            for row in rows
        ),
    )


def runs_table(findings: Findings) -> str:
    """Return every run, with the CPU that each process spends on one credit."""
    runs = [run for of_one_name in findings.runs.values() for run in of_one_name]
    processes = list(dict.fromkeys(name for run in runs for name in run.cpu_us))
    return table(
        (
            "",
            "connections",
            "credits/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            *(f"{p} us" for p in processes),
        ),
        (
            (
                run.name,
                str(run.connections),
                f"{run.per_second:,.0f}",
                *(f"{ms:.1f}" if ms else "" for ms in (run.p50_ms, run.p99_ms, run.p999_ms, run.max_ms)),
                *(f"{run.cpu_us[p]:.0f}" if p in run.cpu_us else "" for p in processes),
            )
            for run in runs
        ),
    )


def offered_table(findings: Findings) -> str:
    """Return latencies at each share of the peak."""
    told = (0.5, 0.99, 0.999, 1.0)
    return table(
        (
            "of the peak",
            "offered/s",
            "answered/s",
            "p50 ms",
            "p99 ms",
            "p99.9 ms",
            "max ms",
            "ask again",
            "too late",
        ),
        (
            (
                f"{run.share:.0%}",
                f"{run.offered_per_second:,.0f}",
                f"{run.per_second:,.0f}",
                *(f"{run.at(q):.1f}" for q in told if q in QUANTILES),
                str(run.unpaid),
                str(run.missed),
            )
            for run in findings.offered
        ),
    )


def growth_table(findings: Findings) -> str:
    """Return what single calls of the ledger take in books of several sizes."""
    if not findings.growth:
        return "Not measured."
    return table(
        ("", *(f"{books.transfers:,}" for books in findings.growth)),
        (
            (what, *(f"{books.median_ms[what]:.2f}" for books in findings.growth))
            for what in findings.growth[0].median_ms
        ),
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, aligned for who reads it as text; all but the first column to the right."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    said = [
        " | ".join(
            cell.rjust(w) if n else cell.ljust(w)
            for n, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "|".join("-" * (w + 1) + ":" if n else "-" * (w + 2) for n, w in enumerate(widths))
    return "\n".join(f"| {line} |" if n != 1 else f"|{rule}|\n| {line} |" for n, line in enumerate(said))


def json(findings: Findings, rows: Sequence[Row]) -> bytes:
    """Return everything that was measured."""
    return msgspec.json.format(msgspec.json.encode({"targets": rows, "findings": findings}), indent=2)
