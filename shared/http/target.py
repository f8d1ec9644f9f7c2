"""Reduces a request's absolute target to the form that the application sees."""

import re
from typing import Final

_ABSOLUTE: Final = re.compile(rb"(?i)https?://[^/?#]+(/.*)?")


def origin_form(target: bytes) -> bytes:
    """Return the path and the query of an absolute target, which RFC 9112 has servers accept; b"" for any other.

    >>> origin_form(b"http://gateway/klas/credit?a=b"), origin_form(b"HTTPS://gateway"), origin_form(b"*")
    (b'/klas/credit?a=b', b'/', b'')
    """
    absolute = _ABSOLUTE.fullmatch(target)
    return b"" if absolute is None else absolute[1] or b"/"
