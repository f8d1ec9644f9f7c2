"""The values that pass between a dialect and its users: tests, simulator and benchmark."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import msgspec

from gateway.providers.base import Callback, Win
from simulator.history import ReplyMeaning


class ReplyMismatchError(AssertionError):
    """A reply is not what the provider's pages say. To a test, that is a failed assertion."""


class HttpResponse(Protocol):
    """A response of any HTTP client, by httpx's names; header names are lower case."""

    @property
    def status_code(self) -> int:
        """The status."""

    @property
    def content(self) -> bytes:
        """The body."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""


class Retries(msgspec.Struct, frozen=True):
    """How long a provider waits for a reply, and when it sends a win again."""

    window_seconds: float
    """After this it hangs up."""

    pause_seconds: float
    """Before it sends a win for the second time."""

    growth: float = 1.0
    """The ratio of each further pause to the one before."""

    pause_seconds_max: float = 60.0
    attempts_max: int = 51

    def pause_before(self, attempt: int) -> float:
        """Return how long it waits before the attempt with this number, from 2 on."""
        return min(self.pause_seconds * self.growth ** (attempt - 2), self.pause_seconds_max)


@dataclass(frozen=True, slots=True)
class Facts:
    """One win, as a request tells of it. `delivery` counts the requests for it."""

    player_id: str
    session_id: str
    provider_tx_id: str = field(default_factory=lambda: str(uuid4()))
    amount: str = "10.50"
    currency: str = "EUR"
    round_id: str = "round-1"
    delivery: int = 1

    @classmethod
    def of(cls, win: Win) -> "Facts":
        """Return the facts of a win that the gateway makes up."""
        return cls(win.player_id, win.session_id, win.provider_tx_id, win.amount, win.currency, win.round_id)

    def but(self, **changes: Any) -> "Facts":
        """Return the same win with something else about it."""
        return replace(self, **changes)

    def another(self, **changes: Any) -> "Facts":
        """Return another win of the same player."""
        return replace(self, provider_tx_id=str(uuid4()), **changes)


class Altered(NamedTuple):
    """A repeat of a known id that differs in one field of the fingerprint, and the value that it has there."""

    field: str
    offered: object
    callback: Callback


@dataclass(frozen=True, slots=True)
class Paid:
    """The contents of a reply about a win that is paid, amounts as texts."""

    transfer_id: str
    balance: str
    real_amount: str | None = None
    bonus_amount: str | None = None


class Reading(NamedTuple):
    """What a provider takes a reply to mean; of a paid win, our transfer's id and the balance as written."""

    meaning: ReplyMeaning
    transfer_id: str = ""
    balance: str = ""
