"""Detects RTSP request lines: httptools takes `RTSP/1.0` for `HTTP/1.0` and does not report which it read.

Nor does it report positions. So bytes that may hold such a line are fed to it in pieces, each up to the next
`RTSP/`. If by then it has read a target and no header, and that target stands right before the `RTSP/`, the
line is an RTSP request line.
"""

from collections.abc import Iterator
from typing import Final

NAME: Final = b"RTSP/"

NAMES_MAX: Final = 100
"""The most occurrences in one packet. No honest packet has more, and each costs as much as parsing a small head."""

LINE_END_BYTES: Final = 64
"""The length of the tail kept of a request line that may continue in the next packet."""


def pieces_of(seen: bytes, begin: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield `seen` from `begin` on, cut before each `RTSP/`, and with each piece the bytes that precede the cut.

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
    """Return whether the kept tail of a request line consists of the target and the spaces after it.

    >>> [ends_with_target(line, b"/a") for line in (b"POST /a  ", b"a ", b" ", b"X: y ", b"POST /a")]
    [True, True, True, False, False]
    """
    end, kept = line.rstrip(b" "), target[-LINE_END_BYTES:]
    return bool(target) and end != line and (end.endswith(kept) or kept.endswith(end))
