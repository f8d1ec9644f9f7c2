"""Log lines that a stranger can cause: the first of a kind at once, then one a second, none uncounted."""

import time

import pytest
from structlog.testing import capture_logs

from shared.log_limit import LimitedLog


def test_flood_of_one_kind_is_one_line_a_second_and_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with capture_logs() as lines:
        log = LimitedLog("dropped", "warning")
        for _ in range(1_000):
            log.record("forged", reason="no MAC")
        log.record("late", reason="nobody waits")
        now = 101.0
        log.record("forged", reason="no MAC")
    assert [(line["kind"], line["times"], line["log_level"]) for line in lines] == [
        ("forged", 1, "warning"),
        ("late", 1, "warning"),
        ("forged", 1_000, "warning"),
    ]
