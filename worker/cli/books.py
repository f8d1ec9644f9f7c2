"""`transfer`, `round` and `ledger`: what is in the books."""

from typing import Annotated, Final
from uuid import UUID

import msgspec
import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import load_settings
from worker import reading
from worker.cli.ends import End, end
from worker.cli.ledger import ask, read
from worker.cli.options import (
    ActingAs,
    AsJson,
    Cursor,
    Integration,
    Limit,
    actor_named,
    check_configured,
    checked_id,
    checked_if_given,
    checked_round_id,
)
from worker.cli.output import round_text, say, transfer_text, transfers_text
from worker.ledger import EPOCH_SECONDS_MAX, Ledger
from worker.paging import LIMIT_DEFAULT, LIMIT_MAX, Page

transfer: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Credits that were posted.")
round_: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rounds of games.")
ledger: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The books as a whole.")


@transfer.command("show")
def show_transfer(
    provider_tx_id: Annotated[
        str | None, typer.Argument(help="The provider's id of the win.", callback=checked_if_given)
    ] = None,
    integration: Annotated[
        str | None, typer.Option(metavar="NAME", help="As in [integrations.NAME].", callback=checked_if_given)
    ] = None,
    transfer_id: Annotated[UUID | None, typer.Option("--id", help="Our own id, instead of these.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Answer 'was this win paid?': the transfer, its entries, and what the provider said of it."""
    if transfer_id is not None and provider_tx_id is None and integration is None:
        _show_by_our_id(transfer_id, as_json=as_json)
    elif transfer_id is None and provider_tx_id is not None and integration is not None:
        _show_by_providers_id(integration, provider_tx_id, as_json=as_json)
    else:
        raise typer.BadParameter("give the provider's id with --integration, or --id alone")


def _show_by_providers_id(integration: str, provider_tx_id: str, *, as_json: bool) -> None:
    settings = load_settings()
    answer = read(settings, reading.show_transfer, integration, provider_tx_id)
    if not answer.posted:
        # A misspelt name must not look like an unpaid win. One that was configured once still finds its own.
        check_configured(settings, integration)
    if as_json or answer.transfer is not None:
        say(answer, transfer_text(answer.transfer) if answer.transfer else "", as_json=as_json)
    if not answer.posted:
        end(End.NOT_PAID, f"not paid: no such transfer: {integration} has none with id {provider_tx_id!r}")


def _show_by_our_id(transfer_id: UUID, *, as_json: bool) -> None:
    answer = read(load_settings(), reading.show_transfer_by_id, transfer_id)
    if answer is None or answer.transfer is None:
        end(End.NO, f"there is no transfer {transfer_id}")
    say(answer, transfer_text(answer.transfer), as_json=as_json)


@transfer.command("list")
def list_transfers(
    player_id: Annotated[str, typer.Option("--player", metavar="ID", callback=checked_id)],
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    *,
    as_json: AsJson = False,
) -> None:
    """List a player's transfers, newest first, a page at a time."""
    found = read(load_settings(), reading.list_transfers, player_id, Page(limit, cursor))
    if found is None:
        end(End.NO, f"there is no player {player_id!r}")
    say(found, transfers_text(found), as_json=as_json)


@round_.command("show")
def show_round(
    round_id: Annotated[
        str, typer.Argument(help="The provider's id of the round.", callback=checked_round_id)
    ],
    integration: Integration,
    limit: Limit = LIMIT_MAX,
    cursor: Cursor = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Show a round: its wins, whether it is closed, and what came after it was."""
    settings = load_settings()
    found = read(settings, reading.show_round, integration, round_id, Page(limit, cursor))
    if found is None:
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
        bool, typer.Option("--bump", help="Begin a new one, with a new key for cached values.")
    ] = False,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Show the epoch of the books, which caches carry in their keys, or begin a new one."""

    async def asked(engine: AsyncEngine) -> str:
        books = Ledger(engine)
        return await (books.bump_epoch(by=actor_named(acting_as)) if bump else books.epoch())

    name = ask(load_settings().ledger, asked)
    within = f"\nrunning workers follow within {EPOCH_SECONDS_MAX:.0f} second" if bump else ""
    say(EpochAnswer(name), f"epoch {name}{within}", as_json=as_json)
