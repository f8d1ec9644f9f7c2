"""Requests that are rejected before they are read: counted at once, and logged once a second."""

from enum import StrEnum
from typing import Final

import structlog

from gateway.metrics import GatewayMetrics
from shared.log_limit import SummedLog

_log = structlog.get_logger()


class Reason(StrEnum):
    """Why a request is rejected unread."""

    UNKNOWN_PATH = "unknown_path"
    UNKNOWN_ADDRESS = "unknown_address"


class RejectionLog(SummedLog[tuple[Reason, str]]):
    """Counts rejections, and logs them: one line a second for each reason and integration."""

    def __init__(self, metrics: GatewayMetrics) -> None:
        """Take the metrics that count them."""
        super().__init__()
        self._metrics: Final = metrics

    def record(self, reason: Reason, integration: str = "") -> None:
        """Count one request; `integration` is a configured name, or "" where the path names none."""
        self._metrics.rejections(reason.value, integration).inc()
        self.add((reason, integration))

    def _write(self, kind: tuple[Reason, str], number: int) -> None:
        reason, integration = kind
        fields = {"integration": integration} if integration else {}
        _log.warning("refused unread", reason=reason.value, **fields, requests=number)
