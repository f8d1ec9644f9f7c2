"""Requests that are refused before they are read: counted at once, and logged once a second.

Whoever sends them pays nothing for it, so a line for each would be theirs to fill a disk with.
"""

import asyncio
from collections import Counter
from enum import StrEnum
from typing import Final

import structlog

from gateway.metrics import GatewayMetrics

FLUSH_SECONDS: Final = 1.0

_log = structlog.get_logger()


class Reason(StrEnum):
    """Why a request is refused unread."""

    UNKNOWN_PATH = "unknown_path"
    UNKNOWN_ADDRESS = "unknown_address"


class RejectionLog:
    """Counts rejections, and sums them up for the log: a line a second for each reason and integration."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        """Take where to count them."""
        self._metrics: Final = metrics
        self._unlogged: Final = Counter[tuple[Reason, str]]()

    def record(self, reason: Reason, integration: str = "") -> None:
        """Count one request; `integration` is a configured name, or "" where the path names none."""
        self._metrics.rejections(reason.value, integration).inc()
        if not self._unlogged:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._unlogged[reason, integration] += 1

    def flush(self) -> None:
        """Log what has not been."""
        for (reason, integration), number in self._unlogged.items():
            of = {"integration": integration} if integration else {}
            _log.warning("refused unread", reason=reason.value, **of, requests=number)
        self._unlogged.clear()
