"""The values in the cache that is shared: a transfer with its identity, under a MAC of the ledger's epoch.

Whoever reaches the cache can write what they like into it. A forged outcome would tell a provider that a win
is paid which is in no books. So a value is believed only when it verifies by a key that the ledger's row
alone holds, and names the very credit that it was found for. Anything else proves nothing: it is a miss.

>>> values = CachedValues(Epoch("an-epoch", b"k" * 32))
>>> posted = Transfer("id", "anna", "EUR", 1, "win", None, None, None, 1, 0, 1, 0)
>>> value = values.encode(("klas", "1"), posted)
>>> values.decode(("klas", "1"), value) == posted
True
>>> values.decode(("klas", "2"), value) is None
True
"""

from hashlib import blake2b
from hmac import compare_digest
from typing import Final

import msgspec

from worker.ledger.epoch import Epoch
from worker.ledger.state import Identity, Transfer

MAC_BYTES: Final = 16
"""128 bits: a guess is one question of a worker, and there is no way to try guesses without one."""

VALUE_BYTES_MAX: Final = 16_384
"""Three texts of 1,000 characters of four bytes each, two ids, and room; what is longer is nobody's value."""

VALUES_BYTES_MAX: Final = 4_194_304
"""Of all values of one answer, about: ten times what a batch of 1,000 wins usually has. Others are misses."""

_PURPOSE: Final = b"credits:cache:v2"


class _Cached(msgspec.Struct, frozen=True, array_like=True):
    integration: str
    provider_tx_id: str
    transfer: Transfer


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Cached)


class CachedValues:
    """Writes and reads the values of one epoch."""

    def __init__(self, epoch: Epoch) -> None:
        """Take the epoch; its name begins what every MAC covers."""
        # Copied for each value: that costs half of what hashing the key anew does.
        self._keyed: Final = blake2b(
            epoch.name.encode() + b"\0", key=epoch.cache_key, digest_size=MAC_BYTES, person=_PURPOSE
        )
        self.prefix: Final = f"credits:v2:{epoch.name}:"

    def key(self, identity: Identity) -> str:
        """Return the key of a credit; an integration's name has no colon."""
        return self.prefix + ":".join(identity)

    def encode(self, identity: Identity, transfer: Transfer) -> bytes:
        """Return the value that says that a credit was posted as `transfer`."""
        body = _encoder.encode(_Cached(*identity, transfer))
        return self._mac(body) + body

    def decode(self, identity: Identity, value: object) -> Transfer | None:
        """Return the transfer if the value verifies and is this credit's, else None. Never raises."""
        if not isinstance(value, bytes) or len(value) > VALUE_BYTES_MAX:
            return None
        body = value[MAC_BYTES:]
        if not compare_digest(value[:MAC_BYTES], self._mac(body)):
            return None
        try:
            cached = _decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a version's that knows the key
            return None
        return cached.transfer if (cached.integration, cached.provider_tx_id) == identity else None

    def _mac(self, body: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(body)
        return mac.digest()
