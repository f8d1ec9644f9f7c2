"""Encodes and verifies the values of the shared cache: transfers with their identities, under a MAC.

Anyone who can reach the cache can write any value into it. With a forged outcome we would reply to a provider
that a win is paid which is in no ledger. So a value counts only if its MAC verifies, with a key that only the
ledger's row has, and if it names the credit for which it was read. Any other value is a miss.

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
"""The length of a MAC. 128 bits suffice: each guess costs a read by a worker, the only one that can check it."""

VALUE_BYTES_MAX: Final = 16_384
"""The most bytes of one value: three texts of 1,000 characters of four bytes, two ids, and some room. A longer one
is not ours."""

VALUES_BYTES_MAX: Final = 4_194_304
"""The most bytes, roughly, of all values in one answer: ten times those of a usual batch of 1,000 wins. Further
values are misses."""

_PURPOSE: Final = b"credits:cache:v2"


class _Cached(msgspec.Struct, frozen=True, array_like=True):
    integration: str
    provider_tx_id: str
    transfer: Transfer


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Cached)


class CachedValues:
    """Encodes and decodes the values of one epoch."""

    def __init__(self, epoch: Epoch) -> None:
        """Take the epoch, whose name is the beginning of the data that every MAC covers."""
        # Copied for each value, which is cheaper than hashing the key each time.
        self._keyed: Final = blake2b(
            epoch.name.encode() + b"\0", key=epoch.cache_key, digest_size=MAC_BYTES, person=_PURPOSE
        )
        self.prefix: Final = f"credits:v2:{epoch.name}:"

    def key(self, identity: Identity) -> str:
        """Return the key of a credit. It is unique, because an integration's name has no colon."""
        return self.prefix + ":".join(identity)

    def encode(self, identity: Identity, transfer: Transfer) -> bytes:
        """Return the value of a credit that was posted as `transfer`."""
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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # written by another version with the key
            return None
        return cached.transfer if (cached.integration, cached.provider_tx_id) == identity else None

    def _mac(self, body: bytes) -> bytes:
        mac = self._keyed.copy()
        mac.update(body)
        return mac.digest()
