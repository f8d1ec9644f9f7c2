"""The commands `transfer`, `round` and `ledger`: posted credits, by win and by round, and the ledger's epoch."""

from dataclasses import replace
from typing import Annotated, Final
from uuid import UUID

import msgspec
import typer
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import load_settings
from worker.cli.cells import (
    call_in_cells,
    cell_to_change,
    check_cursor,
    fail_if_served_elsewhere,
    print_cell_answer,
    print_found,
    query_cells,
)
from worker.cli.exit_codes import ExitCode
from worker.cli.options import (
    ActingAs,
    AsJson,
    Cell,
    Cursor,
    Integration,
    Limit,
    actor_named,
    check_configured,
    checked_id,
    checked_if_given,
    checked_round_id,
)
from worker.cli.output import print_answer, round_text, transfer_text, transfers_text
from worker.ledger.transaction import EPOCH_SECONDS_MAX, Ledger
from worker.queries import queries
from worker.queries.paging import LIMIT_DEFAULT, LIMIT_MAX, Page
from worker.queries.views import TransferAnswer

transfer: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Credits that were posted.")
round_: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Rounds of games.")
ledger: Final = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The ledger as a whole.")


@transfer.command("show")
def show_transfer(
    provider_tx_id: Annotated[
        str | None, typer.Argument(help="The provider's id of the win.", callback=checked_if_given)
    ] = None,
    integration: Annotated[
        str | None, typer.Option(metavar="NAME", help="As in [integrations.NAME].", callback=checked_if_given)
    ] = None,
    transfer_id: Annotated[
        UUID | None,
        typer.Option("--id", help="Our own id of the transfer, instead of the provider's and --integration."),
    ] = None,
    *,
    cell: Cell = None,
    as_json: AsJson = False,
) -> None:
    """Show whether a win was paid: its transfer, its entries, and the details that the provider sent."""
    if transfer_id is not None and provider_tx_id is None and integration is None:
        _show_by_our_id(transfer_id, cell, as_json=as_json)
    elif transfer_id is None and provider_tx_id is not None and integration is not None:
        _show_by_providers_id(integration, provider_tx_id, cell, as_json=as_json)
    else:
        raise typer.BadParameter("give the provider's id with --integration, or --id alone")


def _show_by_providers_id(integration: str, provider_tx_id: str, cell: str | None, *, as_json: bool) -> None:
    settings = load_settings()
    answers = query_cells(settings, cell, queries.show_transfer, integration, provider_tx_id)
    posted = {name: answer for name, answer in answers.by_cell.items() if answer.posted}
    if not posted:
        answers.fail_if_incomplete()
        # Checked only now, because an integration that is no longer configured still has transfers. A misspelt name
        # must not look like an unpaid win.
        check_configured(settings, integration)
        fail_if_served_elsewhere(settings, cell, integration)
        if as_json:
            print_answer(next(iter(answers.by_cell.values())), "", as_json=True)
    missing = f"not paid: no such transfer: {integration} has none with id {provider_tx_id!r}"
    print_found(replace(answers, by_cell=posted), _text, missing, as_json=as_json, code=ExitCode.NOT_PAID)


def _show_by_our_id(transfer_id: UUID, cell: str | None, *, as_json: bool) -> None:
    answers = query_cells(load_settings(), cell, queries.show_transfer_by_id, transfer_id)
    print_found(answers, _text, f"there is no transfer {transfer_id}", as_json=as_json)


def _text(answer: TransferAnswer) -> str:
    return transfer_text(answer.transfer) if answer.transfer is not None else ""


@transfer.command("list")
def list_transfers(
    player_id: Annotated[
        str, typer.Option("--player", metavar="ID", help="The player whose transfers.", callback=checked_id)
    ],
    limit: Limit = LIMIT_DEFAULT,
    cursor: Cursor = None,
    *,
    cell: Cell = None,
    as_json: AsJson = False,
) -> None:
    """List a player's transfers, newest first, a page at a time."""
    settings = load_settings()
    check_cursor(settings, cell, cursor)
    answers = query_cells(settings, cell, queries.list_transfers, player_id, Page(limit, cursor))
    missing = f"there is no player {player_id!r}"
    print_found(answers, transfers_text, missing, as_json=as_json, is_unique=False)


@round_.command("show")
def show_round(  # noqa: PLR0913  (each is an option)
    round_id: Annotated[str, typer.Argument(help="The provider's id of the round.", callback=checked_round_id)],
    integration: Integration,
    limit: Limit = LIMIT_MAX,
    cursor: Cursor = None,
    *,
    cell: Cell = None,
    as_json: AsJson = False,
) -> None:
    """Show a round: its wins, whether it is closed, and the wins that came after it was closed."""
    settings = load_settings()
    check_cursor(settings, cell, cursor)
    answers = query_cells(settings, cell, queries.show_round, integration, round_id, Page(limit, cursor))
    if not (answers.found or answers.faults):
        check_configured(settings, integration)
        fail_if_served_elsewhere(settings, cell, integration)
    missing = f"no win of round {round_id!r} of {integration} is posted"
    print_found(answers, round_text, missing, as_json=as_json)


class EpochAnswer(msgspec.Struct, frozen=True):
    """The answer to `ledger epoch`."""

    epoch: str


@ledger.command("epoch")
def epoch(
    *,
    bump: Annotated[bool, typer.Option("--bump", help="Start a new epoch, so that caches use new keys.")] = False,
    cell: Cell = None,
    acting_as: ActingAs = None,
    as_json: AsJson = False,
) -> None:
    """Show the ledger's epoch, which is part of the keys of all cached values, or start a new one."""

    async def show_or_bump(engine: AsyncEngine) -> str:
        if bump:
            return await Ledger(engine).bump_epoch(by=actor_named(acting_as))
        return await Ledger(engine).epoch()

    settings = load_settings()
    if bump:
        cell = cell_to_change(settings, cell).broker.cell
    answers = call_in_cells(settings, cell, show_or_bump)
    note = f"\nrunning workers follow within {EPOCH_SECONDS_MAX:.0f} second" if bump else ""
    for name, epoch_ in answers.by_cell.items():
        text = f"epoch {epoch_}{note}"
        print_cell_answer(EpochAnswer(epoch_), text, answers.label(name), as_json=as_json)
    answers.fail_if_incomplete()
