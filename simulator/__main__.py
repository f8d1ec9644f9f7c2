"""The providers, played against a gateway: `python -m simulator URL --player anna=SESSION`.

The simulator signs with the secrets of the settings that `CREDITS_CONFIG` names, sends wins at a steady rate, hangs
up and sends again as each provider does, repeats and reorders, and compares the replies with one another. Every win
is money to that gateway: take a staging system. The exit code is 0 only when a reply to every win said 'paid' and no
replies contradict one another.
"""

import asyncio
import random
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gateway.providers.base import Provider
from gateway.providers.registry import build
from shared.errors import SettingsError
from shared.money import Currencies
from shared.settings import load_settings
from simulator.dialects import dialect_of
from simulator.history import Attempt, Service, contradictions, served
from simulator.senders import Behaviour, Player, Senders
from worker.cli.exit_codes import ExitCode, fail
from worker.cli.options import AsJson
from worker.cli.output import aligned, print_answer

REFRESH_SECONDS: Final = 0.2


class Summary(msgspec.Struct, frozen=True):
    """The result of a run."""

    seed: int
    by_integration: dict[str, Service]
    contradictions: Sequence[str]
    """Wins whose replies can't all be true."""

    @property
    def holds(self) -> bool:
        """Whether a reply to every win said 'paid', and no replies contradict one another."""
        return not self.contradictions and not any(service.unpaid for service in self.by_integration.values())


def simulate(  # noqa: PLR0913, PLR0917  (a command's options)
    url: Annotated[str, typer.Argument(help="Where the gateway is, such as http://127.0.0.1:8080.")],
    player: Annotated[list[str], typer.Option(help="Who wins: ID, or ID=SESSION for wins of sessions, too.")],
    rate: Annotated[float, typer.Option(min=0.01, help="Wins a second.")] = 10.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="For how long new wins are sent.")] = 10.0,
    currency: Annotated[str, typer.Option(help="Of the wins.")] = "EUR",
    only: Annotated[list[str] | None, typer.Option(help="An integration; all, if left out.")] = None,
    hurry: Annotated[float, typer.Option(min=0.01, help="Pauses before retries are so much shorter.")] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed sends the same wins; 0: any.")] = 0,
    *,
    as_json: AsJson = False,
) -> None:
    """Play the providers against a gateway, and check its replies."""
    try:
        providers = _providers(only)
    except SettingsError as error:
        fail(ExitCode.SETTINGS, str(error))
    players = [Player(*text.split("=", 1)) for text in player]
    if not any(one.session_id for one in players) and all(
        dialect_of(p).names_sessions_only for p in providers.values()
    ):
        fail(ExitCode.USAGE, f"--player: the wins of {', '.join(providers)} name sessions, so ID=SESSION is needed")
    seed = seed or random.SystemRandom().getrandbits(32)
    senders = Senders(url, providers, players, Behaviour(hurry=hurry), currency, seed)
    asyncio.run(_send(senders, rate, seconds))
    summary = _summary(seed, senders.attempts)
    print_answer(summary, _text(summary), as_json=as_json)
    raise typer.Exit(ExitCode.OK if summary.holds else ExitCode.NO)


def _providers(only: Sequence[str] | None) -> dict[str, Provider[Any, Any]]:
    """Return the integrations that are to send. Raises SettingsError."""
    settings = load_settings()
    currencies = Currencies(settings.currencies)
    names = only or list(settings.integrations)
    if not names:
        raise SettingsError("no integrations are configured")
    if missing := sorted(set(names) - settings.integrations.keys()):
        raise SettingsError(f"no integration is configured as {', '.join(missing)}")
    return {name: build(name, settings.integrations[name], currencies) for name in names}


async def _send(senders: Senders, rate: float, seconds: float) -> None:
    """Send, and show how many wins have got a final reply."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = bar.add_task("wins", total=round(rate * seconds))
        sending = asyncio.ensure_future(senders.send(rate, seconds))
        while not sending.done():
            await asyncio.wait([sending], timeout=REFRESH_SECONDS)
            bar.update(shown, completed=senders.ended, description=f"{senders.begun} sent, settled:")
        await sending


def _summary(seed: int, attempts: Sequence[Attempt]) -> Summary:
    names = sorted({attempt.content.integration for attempt in attempts})
    by_integration = {name: served(a for a in attempts if a.content.integration == name) for name in names}
    return Summary(seed, by_integration, contradictions(attempts))


def _text(summary: Summary) -> str:
    """Return a summary as text."""
    facts = tuple(Service.__annotations__)
    heading = ("", *(name.replace("_", " ") for name in facts))
    rows = [
        (name, *(_number(getattr(service, fact)) for fact in facts)) for name, service in summary.by_integration.items()
    ]
    told = "every win was told as paid" if summary.holds else "NOT every win was told as paid, or not truly"
    return "\n".join(
        (
            aligned(zip(heading, *rows, strict=True), right=set(range(1, len(rows) + 1))),
            f"\nreplies that contradict one another: {len(summary.contradictions)}",
            *summary.contradictions[:10],
            f"{told} (--seed {summary.seed})",
        )
    )


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


app = typer.Typer(add_completion=False)
app.command()(simulate)


def main() -> None:
    """Run the command."""
    sys.exit(app())


if __name__ == "__main__":
    main()
