"""Request lines of RTSP: the parser takes `RTSP/1.0` for `HTTP/1.0`, and does not tell which it read.

Nor does it tell positions. So what may hold such a line is fed to it up to each name of RTSP. If it has read
a target then and no header, and that target is what stands before the name, the line is one of RTSP.
"""

from collections.abc import Iterator
from typing import Final

NAME: Final = b"RTSP/"

NAMES_MAX: Final = 100
"""In what comes at once. Nothing honest has more, and each takes as long as a small request's head."""

LINE_END_BYTES: Final = 64
"""So much is kept of a request line that may go on in the next packet."""


def pieces_of(seen: bytes, begin: int) -> Iterator[tuple[bytes, bytes]]:
    """Give out `seen` from `begin` on, cut before each name, with the end of what stands before that.

    >>> list(pieces_of(b"POST / RTSP/1.0", 0))
    [(b'POST / ', b'POST / '), (b'RTSP/1.0', b'')]
    """
    found = seen.find(NAME, max(0, begin - len(NAME) + 1))
    while found >= 0:
        end = max(begin, found)
        yield seen[begin:end], seen[max(0, found - LINE_END_BYTES) : found]
        begin, found = end, seen.find(NAME, found + 1)
    yield seen[begin:], b""


def ends_with_target(line: bytes, target: bytes) -> bool:
    """Return whether the end of a request line, as far as it is kept, is a target and the spaces behind it.

    >>> [ends_with_target(line, b"/a") for line in (b"POST /a  ", b"a ", b" ", b"X: y ", b"POST /a")]
    [True, True, True, False, False]
    """
    end, kept = line.rstrip(b" "), target[-LINE_END_BYTES:]
    return bool(target) and end != line and (end.endswith(kept) or kept.endswith(end))
