"""Reports the progress of a long command on standard error: as a bar on a terminal, as lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from worker.cli.exit_codes import warn

LINE_SECONDS: Final = 30.0
"""The interval between lines where there is no terminal. A command that ends sooner prints none."""

ReportProgress = Callable[[float, str], None]
"""Reports the part that is done, from 0 to 1, and the step under way."""


@contextmanager
def reporting_progress(command: str, *, silent: bool) -> Iterator[ReportProgress]:
    """Yield the function that reports the progress of `command`. It does nothing if `silent`, as for programs."""
    if silent:
        yield lambda _part, _doing: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(command, total=1.0)
            yield lambda part, doing: bar.update(task, completed=part, description=doing)
    else:
        yield line_reporter(command)


def line_reporter(command: str, clock: Callable[[], float] = time.monotonic) -> ReportProgress:
    """Return a function that prints a line if LINE_SECONDS have passed since the last one."""
    reported_at = clock()

    def report(part: float, doing: str) -> None:
        nonlocal reported_at
        if clock() >= reported_at + LINE_SECONDS:
            reported_at = clock()
            warn(f"{command}: {part:.0%} done, now {doing}")

    return report


def _bar() -> Progress:
    return Progress(
        SpinnerColumn(),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=Console(stderr=True),
        transient=True,
    )
