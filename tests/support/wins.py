"""Signed wins of the player whom a gateway under attack knows, and what replies say of them."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import uuid4

from gateway.providers.base import Callback, Provider, Win
from gateway.providers.registry import build
from shared.money import Currencies
from simulator.client import Response, http_bytes, read_response
from simulator.dialects import DIALECTS, read_reply
from simulator.history import ReplyMeaning
from tests.support.system import INTEGRATIONS

PLAYER: Final = "player01"
SESSION: Final = "session-1"

PROVIDERS: Final[Mapping[str, Provider[Any, Any]]] = {
    name: build(name, table, Currencies()) for name, table in INTEGRATIONS.items()
}


def win(integration: str = "klas", amount: str = "10.50") -> Callback:
    """Return a signed win that nobody has sent yet."""
    return PROVIDERS[integration].sample_request(Win(str(uuid4()), PLAYER, SESSION, amount))


def bulk_bytes(items: int) -> bytes:
    """Return a number of new wins in one signed request of hpgames."""
    return http_bytes("hpgames", DIALECTS["hpgames"].bulk([win("hpgames", "0.01") for _ in range(items)]))


def win_bytes(*headers: str) -> bytes:
    """Return a new win of klas as it is sent, with further headers."""
    return with_lines(http_bytes("klas", win()), *headers)


def with_lines(request: bytes, *headers: str) -> bytes:
    """Return a request with further header lines, as they are."""
    head, _, body = request.partition(b"\r\n\r\n")
    return b"\r\n".join([head, *(line.encode() for line in headers)]) + b"\r\n\r\n" + body


def is_paid(integration: str, response: Response) -> bool:
    """Tell whether a reply tells its provider that the win is paid."""
    return read_reply(PROVIDERS[integration], "EUR", response)[0] is ReplyMeaning.PAID


def assert_own_error(integration: str, response: Response, what: str, status: int) -> None:
    """Assert that a reply is the provider's own error for `what`, whatever HTTP status the gateway gives it."""
    assert response.status == status
    dialect = DIALECTS[integration].speaking_to(PROVIDERS[integration])
    usual = response._replace(status=dialect.status_of(what))
    assert dialect.code_of(usual, dialect.fields_of(usual)) == dialect.codes[what], response


def assert_paid(response: Response) -> None:
    """Assert that a reply tells klas that its win is paid."""
    assert is_paid("klas", response), response


async def responses(received: bytes) -> list[Response]:
    """Return the responses that came on a connection until it ended."""
    reader = asyncio.StreamReader()
    reader.feed_data(received)
    reader.feed_eof()
    read = []
    while not reader.at_eof():
        read.append(await read_response(reader))
    return read
