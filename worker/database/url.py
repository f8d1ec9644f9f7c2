"""Reads `[ledger] database_url` and translates it for the drivers.

A URL of PostgreSQL may have libpq's options, some of which asyncpg has under other names or not at all. Every
defect is reported in one line that quotes no value of the URL, because any of them may be a part of the
password, if the URL is malformed.
"""

import re
import ssl
from typing import Any, Final, NamedTuple

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from shared.errors import SettingsError
from shared.server_url import (
    ACCOUNT_HINT,
    PORT_MAX,
    refuse_characters,
    refuse_host,
    refuse_options,
    refuse_tls_files,
)

POSTGRESQL: Final = "postgresql+asyncpg"
SQLITE: Final = "sqlite+aiosqlite"

_ADDRESS_OPTIONS: Final = frozenset({"host", "port", "user", "password", "database", "passfile"})
"""The options that asyncpg takes as they are."""

_TLS_FILES: Final = ("sslrootcert", "sslcert", "sslkey")
_OWN_OPTIONS: Final = frozenset(
    {"sslmode", "ssl", *_TLS_FILES, "application_name", "connect_timeout", "target_session_attrs"}
)
_UNVERIFIED: Final = ("disable", "allow", "prefer")
_VERIFIED: Final = ("require", "verify-ca", "verify-full")
_SESSIONS: Final = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_SECONDS: Final = re.compile("[1-9][0-9]{0,3}")
_NAME: Final = re.compile("[ -~]{1,63}")


class Postgres(NamedTuple):
    """The parameters of a connection to PostgreSQL."""

    url: URL
    """The URL without the options that are in the other fields."""

    arguments: dict[str, Any]
    """Further arguments of asyncpg's `connect`."""

    application_name: str | None


def read_url(database_url: str) -> URL:
    """Return the URL. Raises SettingsError."""
    if defect := refuse_characters(database_url):
        raise _wrong(defect)
    try:
        url = make_url(database_url)
    except (ArgumentError, NoSuchModuleError):
        raise _wrong(f"is no URL; it must start with {POSTGRESQL}:// or {SQLITE}:///") from None
    except ValueError:  # its message would quote a part of the URL, perhaps of the password
        raise _wrong(f"is no URL; is the port a number? {ACCOUNT_HINT}") from None
    if url.drivername not in {POSTGRESQL, SQLITE}:
        raise _wrong(f"must start with {POSTGRESQL}:// or {SQLITE}:///")
    if url.drivername == SQLITE and (url.query or url.host):
        raise _wrong("of SQLite is sqlite+aiosqlite:///PATH, without host or options; write %3F for ? in a path")
    return url


def read_postgres(url: URL) -> Postgres:
    """Return how to connect to PostgreSQL. Raises SettingsError."""
    if "@" in f"{url.host} {url.database} {' '.join(url.query)}":
        raise _wrong(f"an @ stands where none may; {ACCOUNT_HINT}")
    if defect := refuse_options(url.query, _ADDRESS_OPTIONS | _OWN_OPTIONS) or _refuse_addresses(url):
        raise _wrong(defect)
    own = {name: _single(name, url.query[name]) for name in _OWN_OPTIONS & url.query.keys()}
    arguments: dict[str, Any] = {}
    if "connect_timeout" in own:
        arguments["timeout"] = float(_matching("connect_timeout", own, _SECONDS, "whole seconds, 1 or more"))
    if "target_session_attrs" in own:
        arguments["target_session_attrs"] = _one_of("target_session_attrs", own, _SESSIONS)
    if (tls := _tls(own)) is not None:
        arguments["ssl"] = tls
    name = own.get("application_name")
    if name is not None:
        _matching("application_name", own, _NAME, "1 to 63 printable ASCII characters")
    return Postgres(url.difference_update_query(_OWN_OPTIONS), arguments, name)


def _refuse_addresses(url: URL) -> str | None:
    """Return the defect of the hosts and ports, or None. The options may have several of them.

    A URL may have no host: then asyncpg uses the environment variable PGHOST, or else this machine.
    """
    if url.host == "" or (url.host is None and url.port is not None and "host" not in url.query):
        return "there is no host"
    hosts, ports = _listed(url, "host"), _listed(url, "port")
    if url.host is not None:
        hosts.append(f"[{url.host}]" if ":" in url.host else url.host)
    if url.port is not None:
        ports.append(str(url.port))
    for address in hosts:
        if address.startswith(("/", "@")):  # the directory of a Unix socket
            continue
        is_bracketed, end = address.startswith("["), address.find("]") + 1
        host = address[1 : end - 1] if is_bracketed else address.partition(":")[0]
        if defect := refuse_host(host, is_bracketed=is_bracketed):
            return defect
        _, colon, port = address[end:].partition(":")
        ports += [port] if colon else []
    if not all(port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= PORT_MAX for port in ports):
        return f"the port must be a number from 1 to {PORT_MAX}"
    return None


def _listed(url: URL, option: str) -> list[str]:
    value = url.query.get(option, ())
    return [one for text in ([value] if isinstance(value, str) else value) for one in text.split(",")]


def _tls(own: dict[str, str]) -> ssl.SSLContext | str | bool | None:
    """Return asyncpg's argument `ssl`, or None if the URL has no option for it."""
    if "ssl" in own and "sslmode" in own:
        raise _wrong("ssl and sslmode are two names of one option")
    option = "ssl" if "ssl" in own else "sslmode"
    mode = _one_of(option, own, (*_UNVERIFIED, *_VERIFIED)) if option in own else None
    if mode not in _VERIFIED:
        if named := [name for name in _TLS_FILES if name in own]:
            raise _wrong(f"{named[0]} needs sslmode=verify-full, or verify-ca or require")
        return False if mode == "disable" else mode
    if own.get("sslrootcert") == "system":
        own = {name: value for name, value in own.items() if name != "sslrootcert"}
        mode = "verify-full"  # as in libpq: the system's authorities certify anybody, so the name has to be checked
    if defect := refuse_tls_files(own, *_TLS_FILES):
        raise _wrong(defect)
    return _context(mode, own)


def _context(mode: str, own: dict[str, str]) -> ssl.SSLContext:
    """Return the TLS context for a mode as in libpq, where 'require' verifies only if authorities are given."""
    context = ssl.create_default_context(cafile=own.get("sslrootcert"))
    context.check_hostname = mode == "verify-full"
    if mode == "require" and "sslrootcert" not in own:
        context.verify_mode = ssl.CERT_NONE
    if "sslcert" in own:
        context.load_cert_chain(own["sslcert"], own.get("sslkey"))
    return context


def _single(name: str, value: str | tuple[str, ...]) -> str:
    if isinstance(value, str):
        return value
    raise _wrong(f"{name} is there twice")


def _one_of(name: str, own: dict[str, str], values: tuple[str, ...]) -> str:
    if own[name] not in values:
        raise _wrong(f"{name} is one of {', '.join(values)}")
    return own[name]


def _matching(name: str, own: dict[str, str], pattern: re.Pattern[str], words: str) -> str:
    if pattern.fullmatch(own[name]) is None:
        raise _wrong(f"{name} is {words}")
    return own[name]


def _wrong(defect: str) -> SettingsError:
    return SettingsError(f"[ledger] database_url: {defect}")
