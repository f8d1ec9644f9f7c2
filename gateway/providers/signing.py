"""The secrets that an integration shares with its provider: any of them verifies, the first signs."""

import hmac
from collections.abc import Callable, Sequence
from typing import Final

from shared.secrets import read_secret


class SigningKeys:
    """One or more keys: while one is being replaced by another, requests signed with either are valid."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the keys; the first signs."""
        self._keys: Final = tuple(keys)

    @classmethod
    def load(cls, named: Sequence[str], where: str) -> "SigningKeys":
        """Read literals, `env:NAME` and `file:PATH`. Raises SettingsError for a missing one."""
        return cls([read_secret(name, where) for name in named])

    @property
    def signing(self) -> bytes:
        """The key that signs our own messages."""
        return self._keys[0]

    def verify(self, given: str, signature: Callable[[bytes], str]) -> bool:
        """Return, in constant time, whether `given` equals the `signature` by any of the keys."""
        wanted = given.encode()
        matches = [hmac.compare_digest(wanted, signature(key).encode()) for key in self._keys]
        return any(matches)

    def overlap(self, others: "SigningKeys") -> bool:
        """Return whether any of the keys is also one of another integration's."""
        return any(others.contains(key) for key in self._keys)

    def contains(self, key: bytes) -> bool:
        """Return whether this is one of the keys."""
        return key in self._keys

    def __repr__(self) -> str:
        return f"<{len(self._keys)} secrets>"


def hmac_sha256_hex(key: bytes, message: bytes) -> str:
    """Return the lower-case hex HMAC-SHA256 of `message`."""
    return hmac.digest(key, message, "sha256").hex()
