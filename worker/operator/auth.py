"""Authentication by bearer tokens. The settings hold the SHA-256 of a user's token, not the token."""

import hmac
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from shared.errors import SettingsError
from shared.secrets import read_secret
from shared.settings import OperatorSettings, Role

TOKEN_CHARACTERS_MIN: Final = 32
"""The least length of a named user's token: someone who reads its hash must not be able to guess it."""

UNNAMED_TOKEN_CHARACTERS_MIN: Final = 16
"""The least length of a token in `[operator] tokens`, which is not hashed in the settings."""

_TOKENS: Final = "[operator] tokens"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""The b64token of RFC 6750: the characters that an Authorization header can carry."""


class Caller(NamedTuple):
    """A user of the operator API."""

    name: str
    role: Role


class _KnownToken(NamedTuple):
    """A token that is accepted, and the user that it authenticates."""

    digest: bytes
    characters_min: int
    caller: Caller


class Tokens:
    """The accepted tokens of all users. A user may have several, so that one can be replaced without downtime."""

    def __init__(self, settings: OperatorSettings) -> None:
        """Read the tokens of named users and those without a user.

        Raises SettingsError, whose message shows no token.
        """
        self._tokens: Final = [*_named_tokens(settings), *_unnamed_tokens(settings)]
        if not self._tokens:
            raise SettingsError(f"{_TOKENS}: there are none, and no [operator.users], so nobody could ask")
        names: dict[bytes, str] = {}
        for known in self._tokens:
            first_name = names.setdefault(known.digest, known.caller.name)
            if first_name != known.caller.name:
                raise SettingsError(f"[operator]: {first_name} and {known.caller.name} have one token")

    def authenticate(self, header: bytes) -> Caller | None:
        """Return the user whose token an Authorization header carries, or None.

        The token is compared with every accepted one, in constant time, so that timing reveals nothing about them.
        """
        scheme, _, credentials = header.partition(b" ")
        token = credentials.strip()
        digest = sha256(token).digest()
        matches = [known for known in self._tokens if hmac.compare_digest(digest, known.digest)]
        if scheme.lower() != b"bearer" or not matches or len(token) < matches[0].characters_min:
            return None
        return matches[0].caller

    def __repr__(self) -> str:
        return f"<{len(self._tokens)} tokens>"


def _named_tokens(settings: OperatorSettings) -> Iterator[_KnownToken]:
    for name, user in settings.users.items():
        for digest in user.token_sha256:
            yield _KnownToken(bytes.fromhex(digest), TOKEN_CHARACTERS_MIN, Caller(name, user.role))


def _unnamed_tokens(settings: OperatorSettings) -> Iterator[_KnownToken]:
    for number, reference in enumerate(settings.tokens, start=1):
        caller = Caller(f"token-{number}", Role.ADMIN)
        if caller.name in settings.users:
            raise SettingsError(f"[operator.users.{caller.name}]: this is the name of a token in {_TOKENS}")
        token = _checked(read_secret(reference, _TOKENS))
        yield _KnownToken(sha256(token).digest(), UNNAMED_TOKEN_CHARACTERS_MIN, caller)


def _checked(token: bytes) -> bytes:
    if len(token) < UNNAMED_TOKEN_CHARACTERS_MIN:
        raise SettingsError(f"{_TOKENS}: a token is shorter than {UNNAMED_TOKEN_CHARACTERS_MIN} characters")
    if _TOKEN.fullmatch(token) is None:
        raise SettingsError(f"{_TOKENS}: a token may have letters, digits and -._~+/ only, then =")
    return token
