"""`transfer`, `round` and `ledger`: what is in the books."""

from typing import Annotated, Final

import msgspec
import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.money import Currencies
from shared.settings import load_settings
from worker import reading
from worker.cli.ends import End, end
from worker.cli.ledger import ask
from worker.cli.options import AsJson, Integration, check_configured, checked_id
from worker.cli.output import round_text, say, transfer_text
from worker.ledger import EPOCH_SECONDS_MAX, Ledger

transfer: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Credits that were posted.")
round_: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rounds of games.")
ledger: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The books as a whole.")


class TransferAnswer(msgspec.Struct, frozen=True):
    """The answer to `transfer show`."""

    posted: bool
    integration: str
    provider_tx_id: str
    transfer: reading.TransferView | None


@transfer.command("show")
def show_transfer(
    provider_tx_id: Annotated[str, typer.Argument(help="The provider's id of the win.", callback=checked_id)],
    integration: Integration,
    *,
    as_json: AsJson = False,
) -> None:
    """Answer 'was this win paid?': the transfer, its entries, and what the provider said of it."""
    settings = load_settings()
    currencies = Currencies(settings.currencies)
    found = ask(
        settings.ledger,
        lambda engine: reading.show_transfer(engine, currencies, integration, provider_tx_id),
    )
    if found is None and settings.integrations:
        # A misspelt name must not look like an unpaid win. One that was configured once still finds its own.
        check_configured(settings, integration)
    answer = TransferAnswer(found is not None, integration, provider_tx_id, found)
    if found is not None or as_json:
        say(answer, transfer_text(found) if found is not None else "", as_json=as_json)
    if found is None:
        end(End.NOT_PAID, f"not paid: no such transfer: {integration} has none with id {provider_tx_id!r}")


@round_.command("show")
def show_round(
    round_id: Annotated[str, typer.Argument(help="The provider's id of the round.", callback=checked_id)],
    integration: Integration,
    *,
    as_json: AsJson = False,
) -> None:
    """Show a round: its wins, whether it is closed, and what came after it was."""
    settings = load_settings()
    currencies = Currencies(settings.currencies)
    found = ask(settings.ledger, lambda engine: reading.show_round(engine, currencies, integration, round_id))
    if found is None:
        if settings.integrations:
            check_configured(settings, integration)
        end(End.NO, f"no win of round {round_id!r} of {integration} is posted")
    say(found, round_text(found), as_json=as_json)


class EpochAnswer(msgspec.Struct, frozen=True):
    """The answer to `ledger epoch`."""

    epoch: str


@ledger.command("epoch")
def epoch(
    *,
    bump: Annotated[
        bool, typer.Option("--bump", help="Begin a new one: after the database was restored.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the epoch of the books, which caches carry in their keys, or begin a new one."""

    async def asked(engine: AsyncEngine) -> str:
        books = Ledger(engine)
        return await (books.bump_epoch() if bump else books.epoch())

    name = ask(load_settings().ledger, asked)
    within = f"\nrunning workers follow within {EPOCH_SECONDS_MAX:.0f} second" if bump else ""
    say(EpochAnswer(name), f"epoch {name}{within}", as_json=as_json)
