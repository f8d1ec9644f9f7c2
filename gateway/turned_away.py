"""What is turned away under overload: summed up first, counted and logged once a second.

A line and two counters for each would cost the gateway as much again as the refusal.
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
        self._requests: Final = Counter[tuple[str, str, int]]()
        self._callbacks: Final = Counter[str]()
        self._unsaid: Final = Counter[str]()

    def add(self, integration: str, number: int) -> None:
        """Note so many credits or questions of an integration."""
        if not self._callbacks and not self._unsaid:
            asyncio.get_running_loop().call_later(SAID_EVERY_SECONDS, self.say)
        self._callbacks[integration] += number

    def add_request(self, integration: str, path: str, status: int) -> None:
        """Note a request that had them, and what it was answered with."""
        self._requests[integration, path, status] += 1

    def count(self) -> None:
        """Bring the counters up to date."""
        for of, number in self._requests.items():
            self._metrics.requests(*of).inc(number)
        for integration, number in self._callbacks.items():
            self._metrics.outcomes(integration, Result.UNAVAILABLE.value).inc(number)
        self._unsaid.update(self._callbacks)
        self._requests.clear()
        self._callbacks.clear()

    def say(self) -> None:
        """Count and log what has not been."""
        self.count()
        for integration, number in self._unsaid.items():
            _log.warning("turned away under overload", integration=integration, callbacks=number)
        self._unsaid.clear()
