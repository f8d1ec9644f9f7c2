"""What is not needed: when Python's search for it is worth its time, and what a bounded memory forgets."""

import gc
from itertools import islice
from typing import Any, Final

YOUNG_OBJECTS_MAX: Final = 20_000
"""So many new objects before the young are searched; Python's own 700 are a few requests' worth."""

_OLDER: Final = (50, 100)


def search_seldom() -> None:
    """Leave what is there now out of every search, and search for more seldom.

    To be called once, when a process is about to serve: it has loaded what stays, and what it makes from
    then on is mostly gone when the request is answered, without any search.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, *_OLDER)


def let_go(error: BaseException) -> None:
    """Cut an exception off from the frames that raised it.

    Where one of them holds the exception in turn, all that they hold, such as a message's body, stays until
    the next search.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None


def forget_oldest(memory: dict[Any, Any], entries_max: int) -> None:
    """Remove what was put first, until there are so many.

    All are looked up before any is removed: the search for the first of a dict passes over those that were
    there before it, which cost a worker a tenth of its time.

    >>> numbers = {"a": 1, "b": 2, "c": 3}
    >>> forget_oldest(numbers, 2)
    >>> numbers
    {'b': 2, 'c': 3}
    """
    for key in list(islice(memory, max(0, len(memory) - entries_max))):
        del memory[key]
