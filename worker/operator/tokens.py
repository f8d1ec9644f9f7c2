"""Who may ask: whoever sends one of the tokens that the settings name."""

import hmac
import re
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from shared.errors import SettingsError
from shared.secrets import read_secret

TOKEN_CHARACTERS_MIN: Final = 16
_WHERE: Final = "[operator] tokens"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750's b64token: what the header can carry."""


class Tokens:
    """Several tokens, so that one can be replaced by another without a pause."""

    def __init__(self, named: Sequence[str]) -> None:
        """Read literals, `env:NAME` and `file:PATH`. Raises SettingsError, which shows no token."""
        if not named:
            raise SettingsError(f"{_WHERE}: there are none, so nobody could ask")
        self._digests: Final = [sha256(_checked(read_secret(name, _WHERE))).digest() for name in named]

    def verify(self, header: bytes) -> bool:
        """Tell, in constant time, whether an Authorization header carries one of the tokens."""
        scheme, _, token = header.partition(b" ")
        given = sha256(token.strip()).digest()
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(matches)

    def __repr__(self) -> str:
        return f"<{len(self._digests)} tokens>"


def _checked(token: bytes) -> bytes:
    if len(token) < TOKEN_CHARACTERS_MIN:
        raise SettingsError(f"{_WHERE}: a token is shorter than {TOKEN_CHARACTERS_MIN} characters")
    if _TOKEN.fullmatch(token) is None:
        raise SettingsError(f"{_WHERE}: a token may have letters, digits and -._~+/ only, then =")
    return token
