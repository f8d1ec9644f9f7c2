"""Every fault, one after the other: `python -m tests.faults [PART OF A NAME ...]`, or `make faults`.

Starts its own servers, prints a line for each fault, writes the report to var/faults/, and ends with 1 when
anything was lost, doubled or untrue.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Final

import msgspec
import typer

from tests.faults.clock import provide_library
from tests.faults.cluster import FAULTS as CLUSTER_FAULTS
from tests.faults.experiment import Fault, Trial, run
from tests.faults.faults import FAULTS
from tests.faults.replicated import FAULTS as REPLICATED_FAULTS
from tests.faults.report import line, markdown
from tests.faults.restored import FAULTS as RESTORED_FAULTS
from tests.support.paths import ROOT
from tests.support.servers import Servers, ServersUnavailableError, running_servers
from tests.support.servers.cluster import running_cluster, why_no_cluster
from tests.support.servers.replicated import running_replicated
from tests.support.servers.restorable import running_restorable_server

AsList = Annotated[bool, typer.Option("--list", help="Name the faults and end.")]
AsReplicated = Annotated[
    bool,
    typer.Option("--replicated", help="Only the faults of a database with replicas, and only with this."),
]
VERSION: Final = ("rabbitmqctl", "--quiet", "version")
REPORT: Final = ROOT / "var" / "faults" / "faults.md"


def main(
    parts: Annotated[list[str] | None, typer.Argument(help="Only faults with one of these in their name.")] = None,
    *,
    as_list: AsList = False,
    replicated: AsReplicated = False,
) -> None:
    """Let a system undergo every fault, and hold what was sent and said against the ledger."""
    sets = (REPLICATED_FAULTS,) if replicated else (FAULTS, CLUSTER_FAULTS, RESTORED_FAULTS)
    chosen = [_named_by(parts, faults) for faults in sets]
    if as_list or not any(chosen):
        typer.echo("\n".join(name for faults in sets for name in faults))
        raise typer.Exit(0 if as_list else 2)
    try:
        trials = _undergo_replicated(*chosen) if replicated else _undergo_on_all_servers(*chosen)
    except ServersUnavailableError as error:
        typer.echo(error, err=True)
        raise typer.Exit(3) from None
    typer.echo(f"The report is {REPORT.relative_to(ROOT)}.")
    raise typer.Exit(0 if all(trial.holds for trial in trials) else 1)


def _named_by(parts: list[str] | None, faults: Mapping[str, Fault]) -> list[Fault]:
    return [fault for name, fault in faults.items() if not parts or any(part in name for part in parts)]


def _undergo_on_all_servers(chosen: list[Fault], of_cluster: list[Fault], restored: list[Fault]) -> list[Trial]:
    """Return the trials. Faults of a cluster are left out, and that is said, where none is to be had.

    Raises ServersUnavailableError when nothing is left.
    """
    if any("clock" in fault.name for fault in chosen):
        provide_library()
    about: dict[str, str] = {}
    if of_cluster and (reason := why_no_cluster()):
        if not (chosen or restored):
            raise ServersUnavailableError(reason)
        about["Left out"] = f"{len(of_cluster)} faults of a cluster. {reason}"
        typer.echo(f"Left out: {about['Left out']}")
        of_cluster = []
    with running_servers() as servers:
        trials = asyncio.run(_undergo_all(servers, chosen, about, []))
        if of_cluster:
            with running_cluster() as cluster:
                on_cluster = replace(servers, rabbitmq=cluster)
                trials = asyncio.run(_undergo_all(on_cluster, of_cluster, about, trials))
        if restored:
            with running_restorable_server(servers.postgres) as database:
                on_restorable = replace(servers, postgres=database)
                trials = asyncio.run(_undergo_all(on_restorable, restored, about, trials))
    return trials


def _undergo_replicated(chosen: list[Fault]) -> list[Trial]:
    """Return the trials. Raises ServersUnavailableError where there are no containers."""
    with running_replicated() as database, running_servers() as servers:
        about = {"PostgreSQL": database.run("postgres", "--version").strip()}
        return asyncio.run(_undergo_all(replace(servers, postgres=database), chosen, about, []))


async def _undergo_all(
    servers: Servers, faults: list[Fault], about: dict[str, str], trials: list[Trial]
) -> list[Trial]:
    """Return the trials and those before them. Write the report after each, should somebody interrupt."""
    about["RabbitMQ"] = (await asyncio.to_thread(servers.rabbitmq.run, *VERSION)).strip()
    began = time.monotonic()
    for fault in faults:
        trial = await run(servers, fault)
        trials = [*trials, trial]
        typer.echo(f"{time.monotonic() - began:4.0f} s  {line(trial)}")
        if not trial.holds:
            typer.echo(trial.complaints)
        REPORT.parent.mkdir(parents=True, exist_ok=True)
        REPORT.write_text(markdown(trials, about))
        REPORT.with_suffix(".json").write_bytes(msgspec.json.encode(trials))
    return trials


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    sys.exit(app())
