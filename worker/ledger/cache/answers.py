"""Bounds the answers of Redis and of sentinels in bytes and in the number of their values.

redis-py reads whatever the server sends, and hiredis allocates a list as long as the first line of an answer
says: a server in the place of Redis could fill the memory of a worker. So redis-py's parser in Python reads
the protocol, and this subclass of it refuses an answer as soon as it is larger than Redis ever sends.
"""

from typing import Any, Final

from redis._parsers import _AsyncRESP2Parser
from redis.exceptions import InvalidResponse

VALUES_MAX: Final = 10_000
"""Of one answer: more than a batch has credits, `[worker] batch_credits_max` and those of one message."""

VALUE_BYTES_MAX: Final = 32_768
"""Of one value, or one line: more than a cached value may have, or any text that is asked for."""

_NO_ANSWER: Final = "an answer that is not of the protocol"


class AnswerParser(_AsyncRESP2Parser):
    """A parser of RESP2 for answers that are a value or an array of values, of bounded size.

    It raises InvalidResponse beyond the bounds, and for what is not of the protocol; redis-py then closes the
    connection.
    """

    def __init__(self, socket_read_size: int, bytes_max: int) -> None:
        """Take how much is read at once, and the most that an answer may have."""
        super().__init__(socket_read_size)
        self._bytes_max: Final = bytes_max
        self._bytes_left = bytes_max
        self._is_in_array = False

    async def read_response(self, disable_decoding: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Return one answer, which may be an error."""
        self._bytes_left, self._is_in_array = self._bytes_max, False
        try:
            return await super().read_response(disable_decoding)
        except ValueError:  # a number that is none, or a line beyond the limit of asyncio's reader
            raise InvalidResponse(_NO_ANSWER) from None

    async def _readline(self) -> bytes:
        line = await super()._readline()
        self._take(len(line))
        if line.startswith(b"*"):
            if self._is_in_array:
                raise InvalidResponse("an answer of arrays in an array")
            self._is_in_array = True
            if int(line[1:]) > VALUES_MAX:
                raise InvalidResponse(f"an answer of more than {VALUES_MAX} values")
        elif not line.startswith((b"$", b"+", b":", b"-")):  # redis-py would quote it
            raise InvalidResponse(_NO_ANSWER)
        return line

    async def _read(self, length: int) -> bytes:
        self._take(length)
        return await super()._read(length)

    def _take(self, length: int) -> None:
        if not 0 <= length <= VALUE_BYTES_MAX:
            raise InvalidResponse(f"an answer with a value of more than {VALUE_BYTES_MAX} bytes")
        self._bytes_left -= length
        if self._bytes_left < 0:
            raise InvalidResponse(f"an answer of more than {self._bytes_max} bytes")
