"""Records in the audit log what `dead` does, though no transaction spans the broker and the database."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from shared.operations import Credit
from shared.settings import Settings
from worker.cli.context import call_with_engine
from worker.database.audit_log import Action, Actor, clipped, record
from worker.database.faults import outages_as_unavailable
from worker.database.transactions import transaction

if TYPE_CHECKING:
    from worker.messaging.dead_letters import DeadLetter

CREDITS_PER_ENTRY: Final = 8
"""How many credits one entry names, since its detail has at most 65,536 characters. A large message has several."""


@contextmanager
def audited(
    settings: Settings, by: Actor, action: Action, chosen: "Mapping[str, DeadLetter]"
) -> "Iterator[list[DeadLetter]]":
    """Audit what the block does: record each chosen message before it, and after it each that it adds to the list.

    After a crash in the block only the first entries exist. If they can't be written, the block does not run. Raises
    LedgerUnavailable.
    """
    done: list[DeadLetter] = []
    if chosen:
        call_with_engine(settings.ledger, lambda engine: _record(engine, by, action, "begun", [*chosen.values()]))
    try:
        yield done
    finally:  # also if the block fails after its action, as when its output can't be printed
        if done:
            call_with_engine(settings.ledger, lambda engine: _record(engine, by, action, "done", done))


async def _record(
    engine: AsyncEngine, by: Actor, action: Action, outcome: str, messages: "Sequence[DeadLetter]"
) -> None:
    with outages_as_unavailable():
        async with transaction(engine) as connection:
            for message in messages:
                for detail in _details(message):
                    await record(connection, by, action, f"message:{message.id}", outcome, detail)


def _details(message: "DeadLetter") -> Iterator[Mapping[str, Any]]:
    """Yield the details of a message's entries, each with at most CREDITS_PER_ENTRY credits."""
    credits_ = [_credit_detail(credit) for credit in message.credits]
    for first in range(0, max(len(credits_), 1), CREDITS_PER_ENTRY):
        yield {
            "reason": clipped(message.reason),
            "bytes": len(message.body),
            "credits_in_all": len(credits_),
            **({"unknown_operations": message.unknown_operations} if message.unknown_operations else {}),
            "credits": credits_[first : first + CREDITS_PER_ENTRY],
        }


def _credit_detail(credit: Credit) -> Mapping[str, Any]:
    fields = ("integration", "provider_tx_id", "player_id", "currency")
    texts = {name: clipped(getattr(credit, name)) for name in fields}
    return {**texts, "amount_minor": credit.amount_minor}
