"""Log lines that a stranger can cause: one a second of each kind, and no event that none of them counts."""

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.load_shedding import ShedLog
from gateway.metrics import GatewayMetrics
from gateway.rejections import Reason, RejectionLog
from shared.http.refusals import Refusal, RefusalLog
from shared.log_limit import FLUSH_SECONDS, LimitedLog, SummedLog
from worker.operator.throttle import ThrottleLog

Lines = Sequence[MutableMapping[str, Any]]


def test_a_line_stands_for_a_second() -> None:
    assert FLUSH_SECONDS >= 1.0


async def test_flood_of_one_kind_is_one_line_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.log_limit.FLUSH_SECONDS", 0.01)
    with capture_logs() as lines:
        log = LimitedLog("dropped", "warning")
        for number in range(1_000):
            log.record("forged", reason=f"no MAC in {number}")
        log.record("late", reason="nobody waits")
        assert lines == []
        await until_there_are(2, lines)
        log.record("forged", reason="no MAC")
        await until_there_are(3, lines)
    assert [(line["kind"], line["times"], line["reason"], line["log_level"]) for line in lines] == [
        ("forged", 1_000, "no MAC in 999", "warning"),
        ("late", 1, "nobody waits", "warning"),
        ("forged", 1, "no MAC", "warning"),
    ]


def fill_refusals() -> RefusalLog:
    log = RefusalLog()
    log.record(Refusal.HEAD_BYTES, "192.0.2.1")
    log.record(Refusal.HEAD_BYTES, "192.0.2.2")
    log.record(Refusal.IDLE_SECONDS, "192.0.2.3")
    return log


def fill_rejections() -> RejectionLog:
    log = RejectionLog(GatewayMetrics(lambda: 0))
    log.record(Reason.UNKNOWN_PATH)
    log.record(Reason.UNKNOWN_ADDRESS, "klas")
    return log


def fill_turned_away() -> ShedLog:
    log = ShedLog(GatewayMetrics(lambda: 0))
    log.add("hpgames", 3)
    log.add("hpgames", 1)
    return log


def fill_throttled() -> ThrottleLog:
    log = ThrottleLog()
    log.record("192.0.2.1")
    log.record("support")
    return log


WRITTEN: list[tuple[Callable[[], SummedLog[Any]], Lines]] = [
    (
        fill_refusals,
        [
            {
                "event": "connections refused",
                "reason": "head_bytes",
                "number": 2,
                "last_client": "192.0.2.2",
                "log_level": "warning",
            },
            {
                "event": "connections refused",
                "reason": "idle_seconds",
                "number": 1,
                "last_client": "192.0.2.3",
                "log_level": "info",
            },
        ],
    ),
    (
        fill_rejections,
        [
            {"event": "refused unread", "reason": "unknown_path", "requests": 1, "log_level": "warning"},
            {
                "event": "refused unread",
                "reason": "unknown_address",
                "integration": "klas",
                "requests": 1,
                "log_level": "warning",
            },
        ],
    ),
    (
        fill_turned_away,
        [
            {
                "event": "turned away under overload",
                "integration": "hpgames",
                "callbacks": 4,
                "log_level": "warning",
            }
        ],
    ),
    (
        fill_throttled,
        [
            {
                "event": "refusals throttled",
                "requests": 2,
                "last_source": "support",
                "log_level": "warning",
            }
        ],
    ),
]


@pytest.mark.parametrize(("fill", "written"), WRITTEN, ids=[fill.__name__ for fill, _ in WRITTEN])
async def test_lines_that_operators_look_for_keep_their_names_and_fields(
    fill: Callable[[], SummedLog[Any]], written: Lines
) -> None:
    with capture_logs() as lines:
        log = fill()
        assert lines == []
        log.flush()
        assert lines == written
        log.flush()
    assert lines == written


async def test_callbacks_turned_away_are_counted_once_however_often_metrics_are_read() -> None:
    metrics = GatewayMetrics(lambda: 0)
    turned_away = ShedLog(metrics)
    with capture_logs() as lines:
        for number in (3, 2):
            turned_away.add("klas", number)
            turned_away.record_request("klas", "credit", 200)
            turned_away.export()
            turned_away.export()
        turned_away.add("klas", 1)
        turned_away.flush()
        turned_away.add("klas", 1)
        turned_away.flush()
    labels = {"integration": "klas", "result": "unavailable"}
    assert metrics.registry.get_sample_value("credits_gateway_outcomes_total", labels) == 7
    assert [line["callbacks"] for line in lines] == [6, 1]


async def until_there_are(number: int, lines: Lines) -> None:
    async with asyncio.timeout(10):
        while len(lines) < number:
            await asyncio.sleep(0.01)
