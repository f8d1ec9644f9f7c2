"""Makes pamqp tolerate any message properties that a client can write.

AMQP's texts need not be UTF-8, its times may be outside the years that Python knows, and its tables may be
nested without limit. pamqp raises for each of these while aiormq reads frames, which ends the connection. The
broker would deliver the message again, so a single one would keep a worker or gateway from serving for ever.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from pamqp import decode

TYPE_CHARACTERS_MAX: Final = 80
"""The most characters of a foreign message type that are sent again: at 3 bytes each they fit AMQP's 255."""

_NO_TIME: Final = datetime.fromtimestamp(0, UTC)


def read_any_properties() -> None:
    """Make pamqp decode every property that a broker can deliver, unreadable ones as empty. May be called again."""
    decode.METHODS["shortstr"] = _short_text
    decode.METHODS["table"] = _tolerant(decode.field_table, lambda data: 4 + _length(data), dict)
    decode.METHODS["timestamp"] = _tolerant(decode.timestamp, lambda _: 8, lambda: _NO_TIME)


def repeated_type(message_type: str | None) -> str | None:
    """Return a foreign message's type, cut to a length that can be sent."""
    return message_type[:TYPE_CHARACTERS_MAX] if message_type else None


def _short_text(data: bytes) -> tuple[int, str]:
    end = 1 + data[0]
    return end, data[1:end].decode(errors="replace")


def _length(data: bytes) -> int:
    return int.from_bytes(data[:4], "big")


def _tolerant(
    read: Callable[[bytes], tuple[int, Any]], length: Callable[[bytes], int], nothing: Callable[[], Any]
) -> Callable[[bytes], tuple[int, Any]]:
    def read_or_skip(data: bytes) -> tuple[int, Any]:
        try:
            return read(data)
        except (ValueError, KeyError, OverflowError, OSError, RecursionError, IndexError):
            return length(data), nothing()

    return read_or_skip
