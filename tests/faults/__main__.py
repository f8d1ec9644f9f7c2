"""Every fault, one after the other: `python -m tests.faults [PART OF A NAME ...]`, or `make faults`.

Starts its own servers, prints a line for each fault, writes the report to var/faults/, and ends with 1 when
anything was lost, doubled or untrue.
"""

import asyncio
import sys
import time
from typing import Annotated, Final

import msgspec
import typer

from tests.faults.clock import provide_library
from tests.faults.faults import FAULTS
from tests.faults.report import line, markdown
from tests.faults.trial import Fault, Trial, undergo
from tests.servers import Servers, ServersUnavailableError, running_servers
from tests.system import ROOT

AsList = Annotated[bool, typer.Option("--list", help="Name the faults and end.")]
REPORT: Final = ROOT / "var" / "faults" / "faults.md"


def main(
    parts: Annotated[
        list[str] | None, typer.Argument(help="Only faults with one of these in their name.")
    ] = None,
    *,
    as_list: AsList = False,
) -> None:
    """Let a system undergo every fault, and hold what was sent and said against the ledger."""
    chosen = [fault for name, fault in FAULTS.items() if not parts or any(part in name for part in parts)]
    if as_list or not chosen:
        typer.echo("\n".join(FAULTS))
        raise typer.Exit(0 if as_list else 2)
    try:
        if any("clock" in fault.name for fault in chosen):
            provide_library()
        with running_servers() as servers:
            trials = asyncio.run(_undergo_all(servers, chosen))
    except ServersUnavailableError as error:
        typer.echo(error, err=True)
        raise typer.Exit(3) from None
    raise typer.Exit(0 if all(trial.holds for trial in trials) else 1)


async def _undergo_all(servers: Servers, faults: list[Fault]) -> list[Trial]:
    """Write the report after each: who interrupts has what was found until then."""
    version = await asyncio.to_thread(servers.rabbitmq.run, "rabbitmqctl", "--quiet", "version")
    trials, began = [], time.monotonic()
    for fault in faults:
        trial = await undergo(servers, fault)
        trials.append(trial)
        typer.echo(f"{time.monotonic() - began:4.0f} s  {line(trial)}")
        if not trial.holds:
            typer.echo(trial.complaints)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(markdown(trials, {"RabbitMQ": version.strip()}))
        REPORT.with_suffix(".json").write_bytes(msgspec.json.encode(trials))
    typer.echo(f"The report is {REPORT.relative_to(ROOT)}.")
    return trials


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    sys.exit(app())
