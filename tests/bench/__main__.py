"""`make bench`: what a credit costs from HTTP over the broker to the books, beside yardsticks.

Prints one table, and writes it with all else as Markdown, JSON and plots to var/bench/. In full it also
measures how that changes with slow commits, and with the settings that have a bound or a number, and what
becomes of wins when three times as many come as can be paid.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from tests.bench import (
    machine,
    overload,
    overload_plots,
    overload_report,
    plots,
    report,
    sizing,
    sizing_plots,
    sizing_report,
    targets,
)
from tests.bench.findings import FULL, SHORT, Plan
from tests.bench.suite import Tell, measure_all
from tests.bench.wrk import VoidRunError
from tests.support.servers import ServersUnavailableError, running_servers

DIRECTORY: Final = Path("var/bench")


def main(
    *,
    full: Annotated[bool, typer.Option(help="Longer, by turns, larger books, sizing and overload.")] = False,
    only_sizing: Annotated[bool, typer.Option("--sizing", help="Slow commits and settings only.")] = False,
    only_overload: Annotated[bool, typer.Option("--overload", help="Three times the peak only.")] = False,
    books: Annotated[int, typer.Option(help="Transfers in the largest books, a power of ten.")] = 0,
) -> None:
    """Measure, and say what was measured."""
    plan = FULL if full else SHORT
    if books:
        plan = plan._replace(book_sizes=[10**n for n in range(4, len(str(books)))])
    try:
        if not (only_sizing or only_overload):
            measure(plan)
        if full or only_sizing:
            measure_sizes(plan.rounds)
        if full or only_overload:
            measure_overloads()
    except (ServersUnavailableError, VoidRunError) as reason:
        print(f"bench: {reason}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from None


def measure(plan: Plan) -> None:
    """Measure by a plan. Raises ServersUnavailableError and VoidRunError."""
    with telling(plan.steps) as tell:
        tell("starting the servers")
        machine.provide_tools()
        with running_servers() as servers:
            findings = asyncio.run(measure_all(servers, plan, tell))
    rows = targets.judge_all(targets.ratios(findings))
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / "bench.json").write_bytes(report.json(findings, rows))
    (DIRECTORY / "bench.md").write_text(report.markdown(findings, rows) + "\n")
    plots.draw(findings, DIRECTORY)
    print(report.targets_table(rows), f"\nAll of it is in {DIRECTORY}/.", sep="\n")  # noqa: T201


def measure_sizes(rounds: int) -> None:
    """Measure slow commits and settings, by turns. Raises ServersUnavailableError and VoidRunError."""
    with telling(sizing.steps(rounds)) as tell:
        tell("starting the servers")
        machine.provide_tools()
        with running_servers() as servers:
            sizes = asyncio.run(sizing.measure_sizes(servers, rounds, tell))
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / "sizing.json").write_bytes(sizing_report.json(sizes))
    (DIRECTORY / "sizing.md").write_text(sizing_report.markdown(sizes) + "\n")
    sizing_plots.draw(sizes, DIRECTORY)
    print(f"Slow commits and settings are in {DIRECTORY}/sizing.md.")  # noqa: T201


def measure_overloads() -> None:
    """Measure three times the peak. Raises ServersUnavailableError and VoidRunError."""
    with telling(overload.STEPS) as tell:
        tell("starting the servers")
        machine.provide_tools()
        with running_servers() as servers:
            overloads = asyncio.run(overload.measure_overloads(servers, tell))
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    (DIRECTORY / "overload.json").write_bytes(overload_report.json(overloads))
    (DIRECTORY / "overload.md").write_text(overload_report.markdown(overloads) + "\n")
    overload_plots.draw(overloads, DIRECTORY)
    print(overload_report.summary_table(overloads.measured))  # noqa: T201
    print(f"Second by second it is in {DIRECTORY}/overload.md.")  # noqa: T201


@contextmanager
def telling(steps: int) -> Iterator[Tell]:
    """Yield what is to be told of each step: a bar on a terminal, a line elsewhere."""
    if not sys.stderr.isatty():
        start = time.monotonic()
        yield lambda doing: print(f"{time.monotonic() - start:4.0f} s  {doing}", file=sys.stderr, flush=True)  # noqa: T201
        return
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=steps, completed=-1)
        yield lambda doing: bar.update(task, advance=1, description=doing)


if __name__ == "__main__":
    typer.run(main)
