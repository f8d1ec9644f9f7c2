"""Tunes memory: garbage collection, freed memory that is returned to the system, and bounded dicts."""

import ctypes
import gc
from itertools import islice
from typing import Any, Final

YOUNG_OBJECTS_MAX: Final = 20_000
"""New objects per collection of the youngest generation; Python's own 700 are a few requests' worth."""

_OLDER: Final = (50, 100)


def tune_gc() -> None:
    """Exempt all present objects from garbage collection, and collect less often.

    Call it once, when a process is about to serve: what it has loaded stays, and what a request allocates is
    mostly freed by reference counting when the request is answered.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, *_OLDER)


class MemoryTrimmer:
    """Returns freed memory to the system after much of it was in use.

    The C library keeps freed memory that lies between blocks in use. Returning it blocks the process for some
    milliseconds, so it waits until the load has passed.
    """

    def __init__(self, bytes_min: int, quiet_checks: int) -> None:
        """Take the use in bytes that makes trimming worthwhile, and how many checks in a row must then be below it."""
        self._bytes_min: Final = bytes_min
        self._quiet_checks: Final = quiet_checks
        self._checks_left = 0

    @property
    def is_due(self) -> bool:
        """Whether there is memory to return."""
        return self._checks_left > 0

    def record(self, used_bytes: int) -> None:
        """Record how many bytes are in use."""
        if used_bytes >= self._bytes_min:
            self._checks_left = self._quiet_checks

    def check(self, used_bytes: int) -> None:
        """Record how many bytes are in use, and trim if enough checks in a row were low. Call it periodically."""
        self.record(used_bytes)
        if self._checks_left > 0 and used_bytes < self._bytes_min:
            self._checks_left -= 1
            if not self._checks_left:
                _trim()


def _trim() -> None:
    """Have glibc return free memory; other C libraries keep less of it and have no such function."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def drop_traceback(error: BaseException) -> None:
    """Detach an exception from the frames that raised it.

    If one of those frames refers to the exception, everything the frames hold, such as a message's body, would
    stay in memory until the next garbage collection.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


def evict_oldest(memory: dict[Any, Any], entries_max: int) -> None:
    """Remove the oldest entries until `entries_max` are left.

    The keys are listed before any is removed: finding a dict's first key skips over the entries removed before it,
    so a loop that looked for the first key each time would take quadratic time.

    >>> numbers = {"a": 1, "b": 2, "c": 3}
    >>> evict_oldest(numbers, 2)
    >>> numbers
    {'b': 2, 'c': 3}
    """
    for key in list(islice(memory, max(0, len(memory) - entries_max))):
        del memory[key]
