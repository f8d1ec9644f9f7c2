"""The player of a session or an account: looked up in the ledger once, then cached, since it never changes."""

from typing import Final

from gateway.ledger_client.client import LedgerClient
from gateway.single_flight import SingleFlight
from gateway.slots import SlotLimit
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome
from shared.queries import PlayerRef, Query
from shared.runtime import evict_oldest

PLAYERS_MAX: Final = 100_000


class PlayerCache:
    """Caches the players that were found. A missing session is not cached, since it may be opened yet."""

    def __init__(self, ledger: LedgerClient) -> None:
        """Take the client of the ledger that has the players."""
        self._single_flight: Final = SingleFlight(ledger)
        self._slots: Final = SlotLimit()
        """Slots by body: a request's signature may not cover the session that its body names."""
        self._players: Final[dict[Query, PlayerRef]] = {}

    async def find(self, lookup: Query, deadline: float, body: bytes) -> PlayerRef | None:
        """Return the player, or None if there is none. Raises LedgerUnavailable.

        `body` is the body of the request that needs the player.
        """
        cached = self._players.get(lookup)
        if cached is not None:
            return cached
        async with self._slots.slot(body, deadline):
            (reply,) = await self._single_flight.call_all([lookup], deadline)
        if isinstance(reply, LedgerUnavailable):
            # A new exception: the reply may be shared by several callers, and each raise would add to its traceback.
            raise LedgerUnavailable(str(reply))
        if isinstance(reply, Outcome):
            raise LedgerUnavailable(reply.code.value)
        if reply is None:
            return None
        player = self._players[lookup] = PlayerRef(reply.player_id, reply.currency)
        evict_oldest(self._players, PLAYERS_MAX)
        return player
