"""What is turned away under overload: counted one by one, and logged once a second.

A line for each would cost the gateway as much as a win.
"""

import asyncio
from collections import Counter
from typing import Final

import structlog

from gateway.metrics import GatewayMetrics
from shared.outcome import Result

SAID_EVERY_SECONDS: Final = 1.0

_log = structlog.get_logger()


class TurnedAway:
    """How many callbacks were told to ask again without being read."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        """Take where to count them."""
        self._metrics: Final = metrics
        self._unsaid: Final = Counter[str]()

    def add(self, integration: str, number: int) -> None:
        """Count so many credits or questions of an integration."""
        self._metrics.outcomes(integration, Result.UNAVAILABLE.value).inc(number)
        if not self._unsaid:
            asyncio.get_running_loop().call_later(SAID_EVERY_SECONDS, self._say)
        self._unsaid[integration] += number

    def _say(self) -> None:
        for integration, number in self._unsaid.items():
            _log.warning("turned away under overload", integration=integration, callbacks=number)
        self._unsaid.clear()
