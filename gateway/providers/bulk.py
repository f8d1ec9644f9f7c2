"""Splits requests of many items within a bound, and joins the replies.

Before a request is decoded, its items are estimated by counting commas, which is far cheaper.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.providers.base import CallbackRejected, Reply, json_reply
from gateway.providers.fields import decode
from shared.outcome import OutcomeCode

FEW_COMMAS_MAX: Final = 64
"""Items are separated by commas, so a body with at most this many holds few items."""

ITEM_COMMAS_MAX: Final = 64
"""Commas per item, on average: a body with more of them has too many items, or none that are credits."""


class Bulk:
    """One provider's format of bulk requests and replies: a list of items under a name."""

    def __init__(self, requests: str, responses: str, items_max: int) -> None:
        """Take the names of the two lists, and the number of items that a request may have."""
        self._requests: Final = requests
        self._responses: Final = responses
        self._items_max: Final = items_max
        self._decoder: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(
            msgspec.defstruct("Items", [("items", list[msgspec.Raw], msgspec.field(name=requests))])
        )

    def holds_few(self, body: bytes) -> bool:
        """Return whether a short body has so few items that rejecting all of them costs about as much as one credit."""
        return body.count(b",") <= FEW_COMMAS_MAX

    def split(self, body: bytes) -> list[bytes]:
        """Return the bytes of each item. Raises CallbackRejected if there are too many."""
        if body.count(b",") > ITEM_COMMAS_MAX * self._items_max:
            raise CallbackRejected(OutcomeCode.MALFORMED, f"{self._requests}: too many items")
        items: list[msgspec.Raw] = decode(self._decoder, body).items
        if len(items) > self._items_max:
            raise CallbackRejected(OutcomeCode.MALFORMED, f"{self._requests}: more than {self._items_max} items")
        return [bytes(item) for item in items]

    def join(self, replies: Sequence[Reply]) -> Reply:
        """Return one reply that lists the replies to all items, in their order."""
        return json_reply({self._responses: [msgspec.Raw(reply.body) for reply in replies]})
