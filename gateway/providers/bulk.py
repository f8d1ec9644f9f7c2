"""Requests of many items: bounded before they are read, taken apart as they came, and answered in one.

Items are counted by their commas first: that takes a twentieth of the time that it takes to take them apart.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.providers.base import CallbackRejected, Reply, json_reply
from gateway.providers.fields import decode
from shared.outcome import OutcomeCode

FEW_COMMAS_MAX: Final = 64
"""A comma stands between items, so a body with so many holds few of them."""

ITEM_COMMAS_MAX: Final = 64
"""On average: a body with more of them has more items than it may have, or none that are credits."""


class Bulk:
    """One provider's form of such requests and replies: a list of items under a name."""

    def __init__(self, requests: str, responses: str, items_max: int) -> None:
        """Take the names of the two lists, and how many items a request may have."""
        self._requests: Final = requests
        self._responses: Final = responses
        self._items_max: Final = items_max
        self._decoder: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(
            msgspec.defstruct("Items", [("items", list[msgspec.Raw], msgspec.field(name=requests))])
        )

    def holds_few(self, body: bytes) -> bool:
        """Tell whether a short body has so few items that all are refused in about the time of one credit."""
        return body.count(b",") <= FEW_COMMAS_MAX

    def split(self, body: bytes) -> list[bytes]:
        """Return the bytes of each item. Raises Refused for more than there may be."""
        if body.count(b",") > ITEM_COMMAS_MAX * self._items_max:
            raise CallbackRejected(OutcomeCode.MALFORMED, f"{self._requests}: too many items")
        items: list[msgspec.Raw] = decode(self._decoder, body).items
        if len(items) > self._items_max:
            raise CallbackRejected(OutcomeCode.MALFORMED, f"{self._requests}: more than {self._items_max} items")
        return [bytes(item) for item in items]

    def join(self, replies: Sequence[Reply]) -> Reply:
        """Put the replies to all items into one, in their order."""
        return json_reply({self._responses: [msgspec.Raw(reply.body) for reply in replies]})
