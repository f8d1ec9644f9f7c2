"""Signs and verifies messages between gateways and workers: the broker's password alone proves nothing.

A signed body is a MAC of 32 bytes followed by the payload. The MAC is HMAC-SHA256 by a key that is derived
from one of `[broker] keys` for the message's purpose, so that a message of one purpose never passes for one of
another. In a named cell (see `shared.cells`) the derivation includes the cell, so that a message of one cell
never passes for one of another, even where they share their keys. The recipient stands in the payload. The MAC
is verified before anything is decoded.
"""

import hmac
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from shared.cell_places import MAIN
from shared.errors import SettingsError
from shared.secrets import read_secret
from shared.settings import BrokerSettings

V2: Final = "credits.v2"
V3: Final = "operations.v3"
"""The versions of signed messages. AMQP's `type` names the version, and anyone with the broker's password can write
it, so each version has keys of its own."""

MAC_BYTES: Final = 32
KEY_BYTES_MIN: Final = 32

_SETTING: Final = "[broker] keys"


class Purpose(StrEnum):
    """The purpose of a message, for which its key is derived."""

    BATCH = "batch"
    """Operations and queries from a gateway."""

    REPLY = "reply"
    """Replies of a worker to one gateway."""

    DEAD = "dead"
    """Credits dead-lettered by a worker or requeued by a person; nobody waits for their reply."""


class MessageKeys:
    """Signs with the first key and verifies with any."""

    __slots__ = ("_derived",)

    def __init__(self, keys: Sequence[bytes], cell: str = MAIN) -> None:
        """Take the keys, at least one, and the cell that they sign for."""
        of_cell = "" if cell == MAIN else f" of cell {cell}"
        self._derived: Final = {
            (version, purpose): tuple(
                hmac.digest(key, f"{version} {purpose}{of_cell}".encode(), "sha256") for key in keys
            )
            for version in (V2, V3)
            for purpose in Purpose
        }

    def sign(self, purpose: Purpose, payload: bytes, version: str = V2) -> bytes:
        """Return the signed body for a payload of a version."""
        return hmac.digest(self._derived[version, purpose][0], payload, "sha256") + payload

    def verify(self, body: bytes, *purposes: Purpose, version: str = V2) -> memoryview | None:
        """Return the payload of a body that was signed for one of the purposes, in a version; None for any other."""
        view = memoryview(body)
        mac, payload = view[:MAC_BYTES], view[MAC_BYTES:]
        for purpose in purposes:
            for key in self._derived[version, purpose]:
                if hmac.compare_digest(mac, hmac.digest(key, payload, "sha256")):
                    return payload
        return None


def read_message_keys(settings: BrokerSettings) -> MessageKeys:
    """Return the keys that `[broker] keys` names. Raises SettingsError if one is missing or too short."""
    if not settings.keys:
        raise SettingsError(f"{_SETTING}: there is none, and messages over RabbitMQ are signed; {_HINT}")
    keys = [read_secret(named, _SETTING) for named in settings.keys]
    for number, key in enumerate(keys, 1):
        if len(key) < KEY_BYTES_MIN:
            raise SettingsError(f"{_SETTING}: key {number} of {len(keys)} has {len(key)} bytes; {_HINT}")
    return MessageKeys(keys, settings.cell)


_HINT: Final = f"give one of {KEY_BYTES_MIN} bytes or more, such as from `openssl rand -hex 32`"
