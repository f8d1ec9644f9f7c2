"""How long each provider waits for a reply, and when it sends a win again.

iGamingAce's are from its page: 10 s, then up to 50 times more, 10 s apart. The others publish none; theirs
are what peers in this field do.
"""

from collections.abc import Mapping
from typing import Final

import msgspec


class Habits(msgspec.Struct, frozen=True):
    """One provider's."""

    window_seconds: float
    """After this it hangs up."""

    pause_seconds: float
    """Before it sends a win for the second time."""

    growth: float = 1.0
    """Each further pause is so many times the one before."""

    pause_seconds_max: float = 60.0
    attempts_max: int = 51

    def pause_before(self, attempt: int) -> float:
        """Return how long it waits before the attempt with this number, from 2 on."""
        return min(self.pause_seconds * self.growth ** (attempt - 2), self.pause_seconds_max)


HABITS: Final[Mapping[str, Habits]] = {
    "klas": Habits(window_seconds=5.0, pause_seconds=1.0, growth=2.0),
    "gpas": Habits(window_seconds=5.0, pause_seconds=2.0, growth=1.5),
    "hpgames": Habits(window_seconds=3.0, pause_seconds=1.0, growth=1.5),
    "igamingace": Habits(window_seconds=10.0, pause_seconds=10.0),
}
"""By the provider's name in the settings."""
