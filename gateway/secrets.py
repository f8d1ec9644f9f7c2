"""The secrets that an integration shares with its provider."""

import hmac
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from shared.errors import SettingsError


class Secrets:
    """One or several secrets: while one is being replaced by another, requests of both are right."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the keys; the first signs."""
        self._keys: Final = tuple(keys)

    @classmethod
    def load(cls, named: Sequence[str], where: str) -> "Secrets":
        """Read literals, `env:NAME` and `file:PATH`. Raises SettingsError for a missing one."""
        return cls([_read(name, where) for name in named])

    @property
    def signing(self) -> bytes:
        """The key that signs what we send."""
        return self._keys[0]

    def verify(self, given: str, signature: Callable[[bytes], str]) -> bool:
        """Tell, in constant time, whether `given` is the `signature` by any of the keys."""
        wanted = given.encode()
        matches = [hmac.compare_digest(wanted, signature(key).encode()) for key in self._keys]
        return any(matches)

    def __repr__(self) -> str:
        return f"<{len(self._keys)} secrets>"


def hmac_sha256_hex(key: bytes, message: bytes) -> str:
    """Return the lower-case hex HMAC-SHA256 of `message`."""
    return hmac.digest(key, message, "sha256").hex()


def _read(named: str, where: str) -> bytes:
    if named.startswith("env:"):
        secret = os.environ.get(named.removeprefix("env:"), "").encode()
    elif named.startswith("file:"):
        try:
            secret = Path(named.removeprefix("file:")).read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"{where}: secret {named}: {error.strerror}") from None
    else:
        named, secret = "literal", named.encode()
    if not secret:
        raise SettingsError(f"{where}: secret ({named}) is missing or empty")
    return secret
