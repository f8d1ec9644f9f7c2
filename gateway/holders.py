"""Whose session or account it is: asked of the ledger once, then remembered, since it never changes."""

from typing import Final

from gateway.ledger_client.contract import LedgerClient
from shared.errors import LedgerUnavailable
from shared.garbage import forget_oldest
from shared.outcome import Holder, Outcome
from shared.wire import Lookup

HOLDERS_MAX: Final = 100_000


class Holders:
    """A bounded memory of answers. That there is no such session is not remembered: it may be opened yet."""

    def __init__(self, ledger: LedgerClient) -> None:
        """Take the ledger to ask."""
        self._ledger: Final = ledger
        self._known: Final[dict[Lookup, Holder]] = {}

    async def find(self, lookup: Lookup, deadline: float) -> Holder | None:
        """Return who holds the wallets, with balances as of the first answer. Raises LedgerUnavailable."""
        known = self._known.get(lookup)
        if known is not None:
            return known
        answer = await self._ledger.ask(lookup, deadline)
        if isinstance(answer, Outcome):
            raise LedgerUnavailable(answer.result.value)
        if answer is not None:
            self._known[lookup] = answer
            forget_oldest(self._known, HOLDERS_MAX)
        return answer
