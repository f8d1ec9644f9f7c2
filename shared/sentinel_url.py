"""Reads the URL of Redis sentinels: `redis+sentinel://user:password@a:26379,b:26379/mymaster/0`.

Account, database number and options are those of Redis, as in `redis://`; the account at the sentinels
themselves is in `sentinel_username` and `sentinel_password`. `rediss+sentinel://` uses TLS for both.

>>> read("redis+sentinel://:secret@a,[::1]:26380/mymaster/2?sentinel_password=p+q&client_name=x")
SentinelUrl(sentinels=(('a', 26379), ('::1', 26380)), primary_name='mymaster')
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from shared.server_url import ACCOUNT_HINT, read_options, refuse_characters, refuse_host_and_port, refuse_options

PORT: Final = 26_379
SENTINELS_MAX: Final = 16

OPTIONS: Final = ("sentinel_username", "sentinel_password")

_SCHEME: Final = re.compile(r"(rediss?)\+sentinel://")
_PATH: Final = re.compile(r"/(?P<name>[A-Za-z0-9._-]{1,255})(?P<database>/[0-9]{0,9})?")


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """The sentinels, the name under which they know the primary, and the credentials for both."""

    sentinels: tuple[tuple[str, int], ...]
    primary_name: str
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    redis_url: str = field(repr=False)
    """Account, database and options of the primary, as a URL whose host is the first sentinel."""


def is_sentinel_url(url: str) -> bool:
    """Return whether a URL names sentinels."""
    return _SCHEME.match(url) is not None


def read(url: str) -> SentinelUrl:
    """Return the parsed URL. Raises ValueError, which does not repeat it: it may hold passwords.

    The Redis part goes to `redis_url` without being checked.
    """
    scheme, rest = _SCHEME.match(url), _SCHEME.sub("", url, count=1)
    if scheme is None:
        raise ValueError("must begin with redis+sentinel:// or rediss+sentinel://")
    if defect := refuse_characters(url):
        raise ValueError(defect)
    netloc, after = _split(rest)
    account, at, hosts = netloc.rpartition("@")
    path, _, query = after.partition("?")
    query = query.replace("+", "%2B")  # a plus in a password is a plus, not a blank
    name, database = _read_path(path)
    options = _sentinel_options(query)
    others = "&".join(pair for pair in query.split("&") if pair.partition("=")[0] not in options)
    members = hosts.split(",")
    return SentinelUrl(
        sentinels=_read_sentinels(members),
        primary_name=name,
        username=options.get("sentinel_username"),
        password=options.get("sentinel_password"),
        redis_url=f"{scheme[1]}://{account}{at}{members[0]}{database}?{others}".rstrip("?"),
    )


def _split(rest: str) -> tuple[str, str]:
    """Return the account and hosts, and what follows them."""
    end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    if "#" in rest or "@" in rest[end:]:
        raise ValueError(f"is no URL; {ACCOUNT_HINT}")
    return rest[:end], rest[end:]


def _read_path(path: str) -> tuple[str, str]:
    """Return the primary's name, and the database's number with its slash."""
    found = _PATH.fullmatch(path)
    if found is None or (found["name"].isdigit() and found["database"] is None):
        raise ValueError(
            "what follows the sentinels is the primary's name, and perhaps a number: /mymaster or /mymaster/0"
        )
    return found["name"], found["database"] or ""


def _read_sentinels(members: list[str]) -> tuple[tuple[str, int], ...]:
    if len(members) > SENTINELS_MAX:
        raise ValueError(f"there are more than {SENTINELS_MAX} sentinels")
    return tuple(_read_sentinel(one, f"sentinel {n} of {len(members)}") for n, one in enumerate(members, 1))


def _read_sentinel(member: str, which: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"redis://{member}")
    except ValueError:  # an unmatched bracket
        raise ValueError(f"{which}: is no host and port; {ACCOUNT_HINT}") from None
    if defect := refuse_host_and_port(parts):
        raise ValueError(f"{which}: {defect}")
    return parts.hostname or "", parts.port or PORT


def _sentinel_options(query: str) -> Mapping[str, str]:
    options = {name: value for name, value in read_options(query).items() if name.startswith("sentinel_")}
    if defect := refuse_options(options, OPTIONS):
        raise ValueError(defect)
    if empty := [name for name, value in options.items() if not value]:
        raise ValueError(f"the value of {empty[0]} is none that it may have")
    if "sentinel_username" in options and "sentinel_password" not in options:
        raise ValueError("sentinel_username needs sentinel_password")
    return options
