"""Reads what Redis or a sentinel answers, and no more of it than an honest one ever sends.

hiredis makes a list as long as the first line of an answer says, and buffers a value as long as the server
sends: whoever stands in the place of Redis could fill the memory of a worker. This parser bounds the bytes of
an answer and the number of its values, and knows only what our commands are answered: a value, or an array of
values.
"""

from typing import Any, Final

from redis._parsers.base import AsyncBaseParser
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

VALUES_MAX: Final = 10_000
"""Of one answer: more than a batch has credits, `[worker] batch_credits_max` and those of one message."""

VALUE_BYTES_MAX: Final = 32_768
"""Of one value, or one line: more than a cached value may have, or any text that is asked for."""

_CLOSED: Final = "Connection closed by server."


class AnswerParser(AsyncBaseParser):
    """A parser of RESP2 whose memory is bounded by the number of bytes that an answer may have."""

    def __init__(self, socket_read_size: int, bytes_max: int) -> None:
        """Take how much is read at once, and the most that an answer may have."""
        super().__init__(socket_read_size)
        self._bytes_max: Final = bytes_max
        self._value_bytes_max: Final = min(bytes_max, VALUE_BYTES_MAX)
        self._bytes_read = 0
        """Of the answer that is being read, and of what was sent behind it."""

        self._data = b""
        self._at = 0
        self._connected = False

    def on_connect(self, connection: AbstractConnection) -> None:
        """Begin to read from a new connection."""
        self._stream = connection._reader  # noqa: SLF001  (as every parser of redis-py does)
        self._encoder = connection.encoder
        self._data, self._at = b"", 0
        self._connected = True

    def on_disconnect(self) -> None:
        """Read no more."""
        self._data, self._at = b"", 0
        self._connected = False

    async def can_read_destructive(self) -> bool:
        """Tell what `can_read` does, under its former name."""
        return await self.can_read()

    async def can_read(self) -> bool:
        """Tell whether something is there that nobody has asked for, or the connection is closed."""
        if not self._connected or self._stream is None:
            raise OSError("the connection is closed")
        is_buffered = bool(self._stream._buffer)  # type: ignore[attr-defined]  # noqa: SLF001
        return self._at < len(self._data) or is_buffered or self._stream.at_eof()

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Return one answer, which may be an error. Raises InvalidResponse beyond the bounds."""
        if not self._connected:
            raise RedisConnectionError(_CLOSED)
        self._bytes_read = len(self._data) - self._at
        line = await self._read_line()
        if not line.startswith(b"*"):
            return await self._read_value(line, disable_decoding)
        number = _read_number(line)
        if number > VALUES_MAX:
            raise InvalidResponse(f"an answer of more than {VALUES_MAX} values")
        if number < 0:
            return None
        return [await self._read_value(await self._read_line(), disable_decoding) for _ in range(number)]

    async def _read_value(self, line: bytes, disable_decoding: bool) -> Any:  # noqa: FBT001
        kind = line[:1]
        if kind == b"$":
            length = _read_number(line)
            if length < 0:
                return None
            value = await self._read_bytes(length)
        elif kind == b"+":
            value = line[1:]
        elif kind == b":":
            return _read_number(line)
        elif kind == b"-":
            text = line[1:].decode("utf-8", errors="replace")
            error = self.parse_error(text)  # type: ignore[no-untyped-call]
            if isinstance(error, RedisConnectionError):  # as redis-py's own parsers do
                raise error
            return error
        else:
            raise InvalidResponse("an answer that is not of the protocol")
        return value if disable_decoding else self._encoder.decode(value)  # type: ignore[no-untyped-call]

    async def _read_line(self) -> bytes:
        searched = self._at
        while (end := self._data.find(b"\r\n", searched)) < 0:
            length = len(self._data) - self._at
            _refuse_beyond(self._value_bytes_max, length)
            await self._receive()
            searched = max(length - 1, 0)  # not all anew: the end may be cut in two
        line = self._data[self._at : end]
        self._at = end + 2
        return line

    async def _read_bytes(self, length: int) -> bytes:
        _refuse_beyond(self._value_bytes_max, length)
        while len(self._data) < self._at + length + 2:
            await self._receive()
        start, self._at = self._at, self._at + length + 2
        return self._data[start : start + length]

    async def _receive(self) -> None:
        """Have more of the answer in `_data`, whose part that was read is dropped."""
        _refuse_beyond(self._bytes_max, self._bytes_read)
        received = await self._stream.read(self._read_size) if self._stream is not None else b""
        if not received:
            raise RedisConnectionError(_CLOSED)
        self._bytes_read += len(received)
        self._data, self._at = self._data[self._at :] + received, 0


def _refuse_beyond(bytes_max: int, length: int) -> None:
    if length > bytes_max:
        raise InvalidResponse(f"an answer of more than {bytes_max} bytes")


def _read_number(line: bytes) -> int:
    try:
        return int(line[1:])
    except ValueError:
        raise InvalidResponse("an answer that is not of the protocol") from None
