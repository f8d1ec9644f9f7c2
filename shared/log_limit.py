"""Bounds log lines about events that a stranger can cause at any rate: events are summed, and each sum is a line.

With a line for each event a stranger could fill a disk, and the line would cost more than the event.
"""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Any, Final, Generic, TypeVar

import structlog

FLUSH_SECONDS: Final = 1.0

Kind = TypeVar("Kind", bound=Hashable)


class SummedLog(ABC, Generic[Kind]):
    """Counts events by kind, and writes a line for each kind within a second of its first event.

    Its owner calls `flush` when it stops, so no event is lost. The kinds must be a small closed set.
    """

    def __init__(self) -> None:
        """Start without any events."""
        self._unlogged: Final = Counter[Kind]()

    def add(self, kind: Kind, number: int = 1) -> None:
        """Count `number` events of a kind."""
        if not self._unlogged:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._unlogged[kind] += number

    def flush(self) -> None:
        """Write all lines that are due."""
        for kind, number in self._unlogged.items():
            self._write(kind, number)
        self._unlogged.clear()

    @abstractmethod
    def _write(self, kind: Kind, number: int) -> None:
        """Write the line for `number` events of a kind."""


class LimitedLog(SummedLog[str]):
    """Logs one event: for each kind, how often it happened and the fields of its last occurrence."""

    def __init__(self, event: str, level: str) -> None:
        """Take the event's text and log level."""
        super().__init__()
        self._log: Final = structlog.get_logger()
        self._event: Final = event
        self._level: Final = level
        self._last: Final[dict[str, Mapping[str, Any]]] = {}

    def record(self, kind: str, number: int = 1, **fields: Any) -> None:
        """Count one or more occurrences of a kind, and keep the fields for its line."""
        self.add(kind, number)
        self._last[kind] = fields

    def _write(self, kind: str, number: int) -> None:
        getattr(self._log, self._level)(self._event, kind=kind, times=number, **self._last.pop(kind))
