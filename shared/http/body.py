"""Reads a request's body within a bound, and builds a response from one."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus

from starlette.requests import ClientDisconnect
from starlette.types import Receive


def response_bytes(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """Return an HTTP response."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}content-length: {len(body)}\r\n\r\n"
    return head.encode("latin-1") + body


async def read_body(receive: Receive, headers: Mapping[str, str], bytes_max: int) -> bytes | None:
    """Return the body, or None as soon as it exceeds the bound. Raises ClientDisconnect."""
    if is_larger(headers.get("content-length", "0"), bytes_max):
        return None
    message = await receive()
    pieces, length = [], 0
    while message["type"] == "http.request":
        piece: bytes = message.get("body", b"")
        pieces.append(piece)
        length += len(piece)
        if length > bytes_max:
            return None
        if not message.get("more_body", False):
            return piece if len(pieces) == 1 else b"".join(pieces)
        message = await receive()
    raise ClientDisconnect


def is_larger(announced: str, bytes_max: int) -> bool:
    """Return whether a content-length exceeds a bound; False for a text that is no length.

    The digits are counted first, because Python takes quadratic time to convert many, and refuses over 4,300.

    >>> is_larger("10", 9), is_larger("0010", 10), is_larger("9" * 5_000, 10), is_larger("ten", 1)
    (True, False, True, False)
    """
    digits = announced.lstrip("0")
    if not (digits.isascii() and digits.isdecimal()):
        return False
    return len(digits) > len(str(bytes_max)) or int(digits) > bytes_max
