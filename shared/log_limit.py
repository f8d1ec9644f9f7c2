"""Log lines about what a stranger can bring about at any rate: events are summed up, and each sum is a line.

A line for each event would be the stranger's to fill a disk with, and cost more than the event itself.
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

    Whoever owns one calls `flush` when it ends, so every event is in some line. Kinds are a small closed set.
    """

    def __init__(self) -> None:
        """Begin with nothing to write."""
        self._unlogged: Final = Counter[Kind]()

    def add(self, kind: Kind, number: int = 1) -> None:
        """Count so many events of a kind."""
        if not self._unlogged:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        self._unlogged[kind] += number

    def flush(self) -> None:
        """Write what has not been written."""
        for kind, number in self._unlogged.items():
            self._write(kind, number)
        self._unlogged.clear()

    @abstractmethod
    def _write(self, kind: Kind, number: int) -> None:
        """Write the line about so many events of a kind."""


class LimitedLog(SummedLog[str]):
    """Logs one event: of each kind how many times, and the fields of the last."""

    def __init__(self, event: str, level: str) -> None:
        """Take what is logged, and how serious it is."""
        super().__init__()
        self._log: Final = structlog.get_logger()
        self._event: Final = event
        self._level: Final = level
        self._last: Final[dict[str, Mapping[str, Any]]] = {}

    def record(self, kind: str, number: int = 1, **fields: Any) -> None:
        """Count one event or more of the same, and keep the last one's fields for the line."""
        self.add(kind, number)
        self._last[kind] = fields

    def _write(self, kind: str, number: int) -> None:
        getattr(self._log, self._level)(self._event, kind=kind, times=number, **self._last.pop(kind))
