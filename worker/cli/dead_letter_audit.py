"""What `dead` does is in the audit log, though no transaction spans the broker and the database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.operations import Credit
from shared.settings import Settings
from worker.cli.context import ask
from worker.database.audit_log import Action, Actor, clipped, record
from worker.database.faults import outages_as_unavailable
from worker.database.transactions import transaction

if TYPE_CHECKING:
    from worker.messaging.dead_letters import DeadLetter

CREDITS_PER_ENTRY: Final = 8
"""Credits named in one entry, whose detail has at most 65,536 characters; a large message has several."""


@contextmanager
def audited(
    settings: Settings, by: Actor, action: Action, chosen: "Mapping[str, DeadLetter]"
) -> "Iterator[list[DeadLetter]]":
    """Write down what is about to be done, and then to which messages it was done, which the caller adds.

    A crash between leaves the first entry. Where that can't be written, nothing is done. Raises
    LedgerUnavailable.
    """
    done: list[DeadLetter] = []
    if chosen:
        ask(settings.ledger, lambda engine: _record(engine, by, action, "begun", [*chosen.values()]))
    try:
        yield done
    finally:  # also when what was done can't be printed
        if done:
            ask(settings.ledger, lambda engine: _record(engine, by, action, "done", done))


async def _record(
    engine: AsyncEngine, by: Actor, action: Action, outcome: str, messages: "Sequence[DeadLetter]"
) -> None:
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            for message in messages:
                for detail in _details(message):
                    await record(connection, by, action, f"message:{message.id}", outcome, detail)


def _details(message: "DeadLetter") -> Iterator[Mapping[str, Any]]:
    """Yield what is said of a message, in as many parts as its credits take."""
    asked = [_named(credit) for credit in message.credits]
    for first in range(0, max(len(asked), 1), CREDITS_PER_ENTRY):
        yield {
            "reason": clipped(message.reason),
            "bytes": len(message.body),
            "credits_in_all": len(asked),
            "credits": asked[first : first + CREDITS_PER_ENTRY],
        }


def _named(credit: Credit) -> Mapping[str, Any]:
    fields = ("integration", "provider_tx_id", "player_id", "currency")
    texts = {name: clipped(getattr(credit, name)) for name in fields}
    return {**texts, "amount_minor": credit.amount_minor}
