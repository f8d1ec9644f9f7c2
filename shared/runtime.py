"""What is not needed: when to search for it, when to give it back, and what a bounded memory forgets."""

import ctypes
import gc
from itertools import islice
from typing import Any, Final

YOUNG_OBJECTS_MAX: Final = 20_000
"""So many new objects before the young are searched; Python's own 700 are a few requests' worth."""

_OLDER: Final = (50, 100)


def tune_gc() -> None:
    """Leave what is there now out of every search, and search for more seldom.

    To be called once, when a process is about to serve: it has loaded what stays, and what it makes from
    then on is mostly gone when the request is answered, without any search.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, *_OLDER)


class MemoryReturn:
    """Gives free memory back to the system, once much of it was in use and no longer is.

    The C library keeps what was freed between what is still in use: 130 MB, once 600 bulk requests of 1 MB
    each were answered. To give that back took 18 ms, so it waits until there is quiet.
    """

    def __init__(self, much_bytes: int, quiet_looks: int) -> None:
        """Take from how much in use on it is worth it, and how often in a row it has to be found below."""
        self._much_bytes: Final = much_bytes
        self._quiet_looks: Final = quiet_looks
        self._looks_left = 0

    @property
    def is_due(self) -> bool:
        """Whether there is something to give back."""
        return self._looks_left > 0

    def note(self, used_bytes: int) -> None:
        """Note how much is in use."""
        if used_bytes >= self._much_bytes:
            self._looks_left = self._quiet_looks

    def look(self, used_bytes: int) -> None:
        """Give memory back if it is time; to be called now and then."""
        self.note(used_bytes)
        if self._looks_left > 0 and used_bytes < self._much_bytes:
            self._looks_left -= 1
            if not self._looks_left:
                _trim()


def _trim() -> None:
    """Have the C library give back what it can; others than glibc keep less, and have no such function."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


def let_go(error: BaseException) -> None:
    """Cut an exception off from the frames that raised it.

    Where one of them holds the exception in turn, all that they hold, such as a message's body, stays until
    the next search.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


def evict_oldest(memory: dict[Any, Any], entries_max: int) -> None:
    """Remove what was put first, until there are so many.

    All are looked up before any is removed: the search for the first of a dict passes over those that were
    there before it, which cost a worker a tenth of its time.

    >>> numbers = {"a": 1, "b": 2, "c": 3}
    >>> evict_oldest(numbers, 2)
    >>> numbers
    {'b': 2, 'c': 3}
    """
    for key in list(islice(memory, max(0, len(memory) - entries_max))):
        del memory[key]
