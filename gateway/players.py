"""Whose session or account it is: asked of the ledger once, then remembered, since it never changes."""

from typing import Final

from gateway.ledger_client.client import LedgerClient
from gateway.places import SlotLimit
from gateway.single_flight import SingleFlight
from shared.errors import LedgerUnavailable
from shared.outcome import Holder, Outcome
from shared.queries import Query
from shared.runtime import evict_oldest

PLAYERS_MAX: Final = 100_000


class PlayerCache:
    """A bounded memory of answers. That there is no such session is not remembered: it may be opened yet."""

    def __init__(self, ledger: LedgerClient) -> None:
        """Take the ledger to ask."""
        self._under_way: Final = SingleFlight(ledger)
        self._places: Final = SlotLimit()
        """For what one body asks, which may name any session beside its signature."""
        self._known: Final[dict[Query, Holder]] = {}

    async def find(self, lookup: Query, deadline: float, body: bytes) -> Holder | None:
        """Return who holds the wallets, with balances as of the first answer. Raises LedgerUnavailable.

        `body` is that of the request that has to know.
        """
        known = self._known.get(lookup)
        if known is not None:
            return known
        async with self._places.slot(body, deadline):
            (answer,) = await self._under_way.call_all([lookup], deadline)
        if isinstance(answer, LedgerUnavailable):
            raise LedgerUnavailable(str(answer))  # not one that is told to others, too: its trace would grow
        if isinstance(answer, Outcome):
            raise LedgerUnavailable(answer.code.value)
        if answer is not None:
            self._known[lookup] = answer
            evict_oldest(self._known, PLAYERS_MAX)
        return answer
