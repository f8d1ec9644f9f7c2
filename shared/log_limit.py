"""Log lines about what a stranger can bring about at any rate: at most one a second of each kind."""

import time
from collections import Counter
from typing import Any, Final

import structlog

LINE_EVERY_SECONDS: Final = 1.0


class LimitedLog:
    """Logs an event of a kind at once, and none within the next second; the line after that says how many."""

    def __init__(self, event: str, level: str) -> None:
        """Take what is logged, and how serious it is. Kinds are a small closed set; each has its own line."""
        self._log: Final = structlog.get_logger()
        self._event: Final = event
        self._level: Final = level
        self._unlogged: Final = Counter[str]()
        self._next_at: Final[dict[str, float]] = {}

    def record(self, kind: str, **fields: Any) -> None:
        """Note one event; its fields are logged if the line is due."""
        self._unlogged[kind] += 1
        now = time.monotonic()
        if now >= self._next_at.get(kind, 0.0):
            self._next_at[kind] = now + LINE_EVERY_SECONDS
            line = {"kind": kind, "times": self._unlogged.pop(kind), **fields}
            getattr(self._log, self._level)(self._event, **line)
