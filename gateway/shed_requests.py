"""What is turned away under overload: summed up first, counted and logged once a second.

A line and two counters for each would cost the gateway as much again as the refusal.
"""

from collections import Counter
from typing import Final

import structlog

from gateway.metrics import GatewayMetrics
from shared.log_limit import SummedLog
from shared.outcome import OutcomeCode

_log = structlog.get_logger()


class ShedLog(SummedLog[str]):
    """How many callbacks of each integration were told to ask again without being read.

    `add` counts credits or questions, `add_request` the request that had them.
    """

    def __init__(self, metrics: GatewayMetrics) -> None:
        """Take where to count them."""
        super().__init__()
        self._metrics: Final = metrics
        self._requests: Final = Counter[tuple[str, str, int]]()
        self._counted: Final = Counter[str]()
        """Of the callbacks that are not logged yet, those that the metrics have."""

    def record_request(self, integration: str, path: str, status: int) -> None:
        """Note a request, and what it was answered with."""
        self._requests[integration, path, status] += 1

    def count(self) -> None:
        """Bring the metrics up to date."""
        for of, number in self._requests.items():
            self._metrics.requests(*of).inc(number)
        self._requests.clear()
        for integration, number in self._unlogged.items():
            outcomes = self._metrics.outcomes(integration, OutcomeCode.UNAVAILABLE.value)
            outcomes.inc(number - self._counted[integration])
            self._counted[integration] = number

    def flush(self) -> None:
        """Count and log what has not been."""
        self.count()
        self._counted.clear()
        super().flush()

    def _write(self, kind: str, number: int) -> None:
        _log.warning("turned away under overload", integration=kind, callbacks=number)
