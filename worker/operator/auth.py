"""Who asks: the user whose token a request carries. The settings have the tokens' SHA-256, not the tokens."""

import hmac
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from shared.errors import SettingsError
from shared.secrets import read_secret
from shared.settings import OperatorSettings, Role

TOKEN_CHARACTERS_MIN: Final = 32
"""Of a named user's token; what is hashed must not be guessable by whoever reads the hash."""

UNNAMED_TOKEN_CHARACTERS_MIN: Final = 16
_TOKENS: Final = "[operator] tokens"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750's b64token: what the header can carry."""


class Caller(NamedTuple):
    """A user of the operator API."""

    name: str
    role: Role


class _Known(NamedTuple):
    """A token that lets a user in."""

    digest: bytes
    characters_min: int
    caller: Caller


class Tokens:
    """The tokens of all users; a user may have several, so that one can be replaced without a pause."""

    def __init__(self, settings: OperatorSettings) -> None:
        """Take the users, and read the tokens without one. Raises SettingsError, which shows no token."""
        self._known: Final = [*_of_users(settings), *_unnamed(settings)]
        if not self._known:
            raise SettingsError(f"{_TOKENS}: there are none, and no [operator.users], so nobody could ask")
        names: dict[bytes, str] = {}
        for known in self._known:
            other = names.setdefault(known.digest, known.caller.name)
            if other != known.caller.name:
                raise SettingsError(f"[operator]: {other} and {known.caller.name} have one token")

    def caller_of(self, header: bytes) -> Caller | None:
        """Return whose token an Authorization header carries, or None. Takes the same time for any token."""
        scheme, _, given = header.partition(b" ")
        token = given.strip()
        digest = sha256(token).digest()
        matches = [known for known in self._known if hmac.compare_digest(digest, known.digest)]
        if scheme.lower() != b"bearer" or not matches or len(token) < matches[0].characters_min:
            return None
        return matches[0].caller

    def __repr__(self) -> str:
        return f"<{len(self._known)} tokens>"


def _of_users(settings: OperatorSettings) -> Iterator[_Known]:
    for name, user in settings.users.items():
        for digest in user.token_sha256:
            yield _Known(bytes.fromhex(digest), TOKEN_CHARACTERS_MIN, Caller(name, user.role))


def _unnamed(settings: OperatorSettings) -> Iterator[_Known]:
    for number, named in enumerate(settings.tokens, start=1):
        caller = Caller(f"token-{number}", Role.ADMIN)
        if caller.name in settings.users:
            raise SettingsError(f"[operator.users.{caller.name}]: this is the name of a token in {_TOKENS}")
        token = _checked(read_secret(named, _TOKENS))
        yield _Known(sha256(token).digest(), UNNAMED_TOKEN_CHARACTERS_MIN, caller)


def _checked(token: bytes) -> bytes:
    if len(token) < UNNAMED_TOKEN_CHARACTERS_MIN:
        raise SettingsError(f"{_TOKENS}: a token is shorter than {UNNAMED_TOKEN_CHARACTERS_MIN} characters")
    if _TOKEN.fullmatch(token) is None:
        raise SettingsError(f"{_TOKENS}: a token may have letters, digits and -._~+/ only, then =")
    return token
