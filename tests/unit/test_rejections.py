"""What is refused unread: counted each, and a line of log for many."""

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.metrics import GatewayMetrics
from gateway.rejections import Reason, RejectionLog


async def test_many_are_a_line_for_each_reason_and_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.log_limit.FLUSH_SECONDS", 0.01)
    metrics = GatewayMetrics(lambda: 0)
    rejections = RejectionLog(metrics)
    with capture_logs() as logged:
        for number in range(300):
            rejections.record(Reason.UNKNOWN_PATH, "klas")
            rejections.record(Reason.UNKNOWN_ADDRESS, "gpas" if number % 3 else "klas")
            rejections.record(Reason.UNKNOWN_PATH)
        assert logged == []
        await until_logged(logged, 4)
        rejections.record(Reason.UNKNOWN_PATH, "klas")
        await until_logged(logged, 5)
    assert [(line["reason"], line.get("integration"), line["requests"]) for line in own(logged)] == [
        ("unknown_path", "klas", 300),
        ("unknown_address", "klas", 100),
        ("unknown_path", None, 300),
        ("unknown_address", "gpas", 200),
        ("unknown_path", "klas", 1),
    ]
    labels = {"reason": "unknown_address", "integration": "gpas"}
    assert metrics.registry.get_sample_value("credits_gateway_rejections_total", labels) == 200


def own(logged: Sequence[MutableMapping[str, Any]]) -> list[MutableMapping[str, Any]]:
    """Return the lines of rejections: what earlier tests left to be logged may come between."""
    return [line for line in logged if line["event"] == "refused unread"]


async def until_logged(logged: Sequence[MutableMapping[str, Any]], lines: int) -> None:
    async with asyncio.timeout(10):
        while len(own(logged)) < lines:
            await asyncio.sleep(0.01)
