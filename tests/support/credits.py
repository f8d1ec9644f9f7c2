"""Credits for tests: one plain win, and whatever a test makes different about it."""

from typing import Any

import msgspec

from shared.operations import Credit, Kind

WIN = Credit(
    integration="klas",
    provider_tx_id="win-1",
    player_id="anna",
    currency="EUR",
    amount_minor=1050,
    round_id="round-1",
    game_id="game-1",
    bet_id="bet-1",
)

OTHER_CONTENT: dict[str, Any] = {
    "player_id": "ben",
    "currency": "USD",
    "amount_minor": 1051,
    "kind": Kind.JACKPOT,
    "round_id": "round-2",
    "game_id": None,
    "bet_id": "bet-2",
}
"""For each field of the fingerprint, a value that WIN does not have."""

OTHER_DELIVERY: dict[str, Any] = {
    "round_closed": True,
    "session_id": "session-2",
    "open_session_only": True,
    "details": {"request_id": "2"},
}
"""For each field that names a delivery attempt and not the money, a value that WIN does not have."""


def win(provider_tx_id: str = WIN.provider_tx_id, **different: Any) -> Credit:
    """Return WIN with some fields different."""
    return msgspec.structs.replace(WIN, provider_tx_id=provider_tx_id, **different)
