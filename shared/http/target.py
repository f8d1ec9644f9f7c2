"""Targets of requests, as a server has to take them."""

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"(?i)https?://[^/?#]+(/.*)?")


def origin_form(target: bytes) -> bytes:
    """Return the path and the query of an absolute target, as a server has to take one; of another, nothing.

    >>> origin_form(b"http://gateway/klas/credit?a=b"), origin_form(b"HTTPS://gateway"), origin_form(b"*")
    (b'/klas/credit?a=b', b'/', b'')
    """
    absolute = _ABSOLUTE.fullmatch(target)
    return b"" if absolute is None else absolute[1] or b"/"
