"""Progress of a long command, on standard error: a bar on a terminal, now and then a line elsewhere."""

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
"""So often a line, where there is no terminal; a command that is faster prints none."""

Tell = Callable[[float, str], None]
"""Takes what part is done, from 0 to 1, and what is being done."""


@contextmanager
def telling_progress(command: str, *, silent: bool) -> Iterator[Tell]:
    """Yield what is to be told of the progress of `command`; silent for programs that read the answer."""
    if silent:
        yield lambda _part, _doing: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(command, total=1.0)
            yield lambda part, doing: bar.update(task, completed=part, description=doing)
    else:
        yield lines(command)


def lines(command: str, clock: Callable[[], float] = time.monotonic) -> Tell:
    """Return what prints a line when LINE_SECONDS have passed since the last."""
    told_at = clock()

    def tell(part: float, doing: str) -> None:
        nonlocal told_at
        if clock() >= told_at + LINE_SECONDS:
            told_at = clock()
            warn(f"{command}: {part:.0%} done, now {doing}")

    return tell


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
