"""What was measured, as tables for people and JSON for programs."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tests.bench.closed_loop import CLIENT
from tests.bench.findings import Findings
from tests.bench.targets import Row

LATENCIES: Final = {"p50 ms": 0.5, "p99 ms": 0.99, "p99.9 ms": 0.999, "max ms": 1.0}
NOTES: Final = """\
Everything runs on the machine named below: servers, gateway, worker, and the load client, which shares the
processors with them. PostgreSQL syncs every commit. One gateway, one worker, default settings; 10,000
players, the providers in turn.

- *Closed loop*: each connection sends its next request when it has its reply. By wrk, which adds to its
  latencies what slow replies held back.
- *Offered load*: wins come by chance, and the latency of each counts from the instant at which it was due.
  'Ask again': answered, but not as paid. 'Too late': after the provider's window. 'Sync': the longest that
  the disk took meanwhile to keep a block which somebody else wrote every 50 ms.
- A run counts only if every win was paid: the gateway's counters, what the client counted and the transfers
  in the books are held against each other after each run, and at the end the books are verified.
- *CPU us* is what one credit costs in microseconds of a processor, the client's not added; then by process.
  It stays comparable where others use the machine too.
- *Direct baseline*: the same HTTP front and tables, one transaction a request, in one process with 16
  connections to PostgreSQL; no queue, no batch, no cache.
- *Bulks* hold 100 credits, which are what is counted; over 16 connections, because a gateway takes 5,000
  credits at a time."""


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
        ("", "connections", "per second", *LATENCIES, "CPU us", *processes),
        (
            (
                run.name,
                str(run.connections),
                f"{run.per_second:,.0f}",
                *(f"{ms:.1f}" if ms else "" for ms in (run.p50_ms, run.p99_ms, run.p999_ms, run.max_ms)),
                f"{run.all_cpu_us:.0f}",
                *(f"{run.cpu_us[p]:.0f}" if p in run.cpu_us else "" for p in processes),
            )
            for run in runs
        ),
    )


def offered_table(findings: Findings) -> str:
    """Return latencies at each share of the peak, and how many wins were not paid in time."""
    return table(
        (
            "of the peak",
            "offered/s",
            "answered/s",
            *LATENCIES,
            "sync ms",
            "CPU us",
            CLIENT,
            "ask again",
            "too late",
        ),
        (
            (
                f"{run.share:.0%}",
                f"{run.offered_per_second:,.0f}",
                f"{run.per_second:,.0f}",
                *(f"{run.at(quantile):.1f}" for quantile in LATENCIES.values()),
                f"{run.longest_sync_ms:.1f}",
                f"{run.all_cpu_us:.0f}",
                f"{run.cpu_us[CLIENT]:.0f}",
                str(run.unpaid),
                str(run.missed),
            )
            for run in sorted(findings.offered, key=lambda run: run.share)
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
        " | ".join(cell.rjust(w) if n else cell.ljust(w) for n, (cell, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
    rule = "|".join("-" * (w + 1) + ":" if n else "-" * (w + 2) for n, w in enumerate(widths))
    return "\n".join(f"| {line} |" if n != 1 else f"|{rule}|\n| {line} |" for n, line in enumerate(said))


def json(findings: Findings, rows: Sequence[Row]) -> bytes:
    """Return everything that was measured."""
    return msgspec.json.format(msgspec.json.encode({"targets": rows, "findings": findings}), indent=2)
