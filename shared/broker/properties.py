"""Message properties as anyone may have written them.

AMQP's texts need not be UTF-8, its times need not be within the years that Python knows, and its tables may
be nested without end. pamqp raises for each of these where aiormq reads frames, which ends the connection:
the broker delivers the message again, and one message would keep a worker or a gateway from ever serving.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from pamqp import decode

TYPE_CHARACTERS_MAX: Final = 80
"""Of a message type that is repeated: three bytes each still fit into AMQP's 255."""

_NO_TIME: Final = datetime.fromtimestamp(0, UTC)


def read_any_properties() -> None:
    """Have pamqp read every property that a broker can deliver, unreadable ones as empty. May be repeated."""
    decode.METHODS["shortstr"] = _short_text
    decode.METHODS["table"] = _tolerant(decode.field_table, lambda data: 4 + _length(data), dict)
    decode.METHODS["timestamp"] = _tolerant(decode.timestamp, lambda _: 8, lambda: _NO_TIME)


def repeated_type(message_type: str | None) -> str | None:
    """Return a foreign message's type as it can be sent again."""
    return message_type[:TYPE_CHARACTERS_MAX] if message_type else None


def _short_text(data: bytes) -> tuple[int, str]:
    end = 1 + data[0]
    return end, data[1:end].decode(errors="replace")


def _length(data: bytes) -> int:
    return int.from_bytes(data[:4], "big")


def _tolerant(
    read: Callable[[bytes], tuple[int, Any]], length: Callable[[bytes], int], nothing: Callable[[], Any]
) -> Callable[[bytes], tuple[int, Any]]:
    def read_or_pass_over(data: bytes) -> tuple[int, Any]:
        try:
            return read(data)
        except (ValueError, KeyError, OverflowError, OSError, RecursionError, IndexError):
            return length(data), nothing()

    return read_or_pass_over
