"""A surge in phases, and what may become of a win in it."""

from enum import IntEnum

import msgspec


class Fate(IntEnum):
    """What became of an attempt."""

    PAID = 0
    ASK_AGAIN = 1
    MISSED = 2
    """No reply within the provider's window."""

    LOST = 3
    """The connection was refused or reset."""


class Phase(msgspec.Struct, frozen=True):
    """A time of steady load."""

    name: str
    seconds: float
    per_second: float
    at_once: int = 0
    """So many more are sent in the phase's first instant, and again until they are told as paid."""

    @property
    def wins(self) -> int:
        """How many new wins it takes."""
        return self.at_once + int(self.seconds * self.per_second)


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that has ended."""

    due_seconds: float
    """When it was due, from the first phase's begin."""

    latency_ms: float
    """From then."""

    fate: Fate
    at_once: bool
    """Whether it was sent with others all at once, or again after that."""

    had_connection: bool = True
    """Or it waited for one until its window ended, and the measured system never heard of it."""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What became of all attempts."""

    began: float
    """When the first phase began, on the monotonic clock, which is one for all processes."""

    late_ms_max: float
    """By so much the client itself was late with sending, at most; latencies have it in them."""

    ended: list[Ended]
