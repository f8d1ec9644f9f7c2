"""Bounds the answers of Redis and of sentinels, in bytes and in the number of their values.

redis-py reads whatever the server sends, and hiredis allocates a list of the length that the first line of an
answer gives: a server in the place of Redis could fill a worker's memory. So redis-py's Python parser is used,
in this subclass, which refuses an answer as soon as it exceeds what Redis can be expected to send.
"""

from typing import Any, Final

from redis._parsers import _AsyncRESP2Parser
from redis.exceptions import InvalidResponse

VALUES_MAX: Final = 10_000
"""The most values in one answer: more than the credits of a batch, which may exceed `[worker] batch_operations_max`
by those of one message."""

VALUE_BYTES_MAX: Final = 32_768
"""The most bytes in one value or line: more than in a cached value, or in any other text that we request."""

_NOT_RESP: Final = "an answer that is not of the protocol"


class AnswerParser(_AsyncRESP2Parser):
    """A parser of RESP2 that accepts a value or an array of values, of bounded size.

    It raises InvalidResponse if an answer exceeds a bound or violates the protocol; redis-py then closes the
    connection.
    """

    def __init__(self, socket_read_size: int, bytes_max: int) -> None:
        """Take the number of bytes to read at once, and the most bytes that an answer may have."""
        super().__init__(socket_read_size)
        self._bytes_max: Final = bytes_max
        self._bytes_left = bytes_max
        self._is_in_array = False

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Return the next answer, which may be an error."""
        self._bytes_left, self._is_in_array = self._bytes_max, False
        try:
            return await super().read_response(disable_decoding)
        except ValueError:  # a malformed number, or a line beyond the limit of asyncio's reader
            raise InvalidResponse(_NOT_RESP) from None

    async def _readline(self) -> bytes:
        line = await super()._readline()
        self._count_bytes(len(line))
        if line.startswith(b"*"):
            if self._is_in_array:
                raise InvalidResponse("an answer of arrays in an array")
            self._is_in_array = True
            if int(line[1:]) > VALUES_MAX:
                raise InvalidResponse(f"an answer of more than {VALUES_MAX} values")
        elif not line.startswith((b"$", b"+", b":", b"-")):  # redis-py would quote it
            raise InvalidResponse(_NOT_RESP)
        return line

    async def _read(self, length: int) -> bytes:
        self._count_bytes(length)
        return await super()._read(length)

    def _count_bytes(self, length: int) -> None:
        """Raise InvalidResponse if a value of `length` exceeds its bound, or that of the answer."""
        if not 0 <= length <= VALUE_BYTES_MAX:
            raise InvalidResponse(f"an answer with a value of more than {VALUE_BYTES_MAX} bytes")
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise InvalidResponse(f"an answer of more than {self._bytes_max} bytes")
