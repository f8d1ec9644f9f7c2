"""What is made up to be sent: wins, repeats of them that differ or do not, and what fails meanwhile."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from shared.operations import Credit, Kind, Wallet
from tests.support.fault_points import DATABASE_STEPS, STEPS, Fault
from tests.support.model import BALANCE_MAX

INTEGRATIONS: Final = ("klas", "gpas")
CONTENT: Final[dict[str, st.SearchStrategy[Any]]] = {
    "player_id": st.sampled_from(["anna", "anna", "anna", "anna", "ben", "ben", "nobody"]),
    "currency": st.sampled_from(["EUR", "EUR", "EUR", "EUR", "JPY", "KWD"]),
    "amount_minor": st.sampled_from([1, 2, 0, 1050, 1051, BALANCE_MAX // 2, BALANCE_MAX]),
    "kind": st.sampled_from(Kind),
    "round_id": st.sampled_from(["round-1", "round-2", None]),
    "game_id": st.sampled_from([None, "game-1"]),
    "bet_id": st.sampled_from([None, "bet-1"]),
}
"""What a repeat must have in common with the first."""

DELIVERY: Final[dict[str, st.SearchStrategy[Any]]] = {
    "wallet": st.sampled_from(Wallet),
    "round_closed": st.booleans(),
    "session_id": st.sampled_from(["session", None, "unknown"]),
    "open_session_only": st.sampled_from([False, False, False, False, True]),
    "details": st.sampled_from([{}, {"request_id": "2"}]),
}
"""What a repeat may have otherwise."""


class Copy(msgspec.Struct, frozen=True):
    """A win of the example, by its number, as it is sent this time."""

    win: int
    otherwise: dict[str, Any] = {}


@dataclass(frozen=True)
class Sent:
    """A batch that a gateway sends."""

    copies: list[Copy]
    asks_for: tuple[str, ...] = ()
    """Players whose balance is asked for as well."""

    expired: bool = False


def one_of(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Return strategies for one field, as a dictionary."""
    return st.one_of([st.fixed_dictionaries({name: values}) for name, values in fields.items()])


wins = st.builds(
    Credit,
    integration=st.sampled_from(INTEGRATIONS),
    provider_tx_id=st.sampled_from(["1", "2", "3", "4", "5", "6"]),
    **CONTENT,
    **DELIVERY,
)
otherwise = st.one_of(st.just({}), st.just({}), one_of(DELIVERY), one_of(CONTENT))
batches = st.builds(
    Sent,
    copies=st.lists(st.builds(Copy, st.integers(0, 7), otherwise), min_size=1, max_size=6),
    asks_for=st.sampled_from([(), (), (), ("anna",), ("ben", "nobody")]),
    expired=st.sampled_from([False, False, False, True]),
)
sendings = st.lists(batches, min_size=1, max_size=3)
faults = st.builds(Fault, st.sampled_from(STEPS), died=st.just(value=True)) | st.builds(
    Fault, st.sampled_from(DATABASE_STEPS), died=st.just(value=False)
)
