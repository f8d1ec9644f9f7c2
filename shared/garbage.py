"""Python's search for objects that refer to one another in circles, and when it is worth its time."""

import gc
from typing import Final

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
