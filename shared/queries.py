"""The queries about players that a gateway sends to the ledger beside operations."""

from typing import NamedTuple

import msgspec

from shared.outcome import Balance, Outcome


class FindPlayer(msgspec.Struct, frozen=True, array_like=True, tag="player"):
    """The query for a player's own currency and balance."""

    player_id: str
    integration: str = ""
    """The integration whose request has to know; "" in a gateway's probe, and from older gateways. In another
    cell's books the same id may be another person's."""


class FindSession(msgspec.Struct, frozen=True, array_like=True, tag="session"):
    """The query for the player of a session, and its currency."""

    integration: str
    session_id: str


Query = FindPlayer | FindSession
QueryReply = Balance | Outcome | None
"""The player's balance; None if there is no such player or session; the outcome UNAVAILABLE."""


class PlayerRef(NamedTuple):
    """The player of a session, or of an account: what never changes of a query's reply."""

    player_id: str
    currency: str
