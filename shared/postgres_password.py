"""Where PostgreSQL's driver gets a password: the URL, or else a variable, or else a file of passwords.

asyncpg follows libpq, but for services, which it reads from a DSN that it isn't given here.
"""

import getpass
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

PASSFILE_BYTES_MAX: Final = 1_048_576

_FIELD: Final = re.compile(r"(?<!\\):")
_FIELDS: Final = 5


class Password(NamedTuple):
    """A password, and what holds it."""

    text: str
    source: str
    """In words that follow the setting's name; "" for the URL itself."""


def postgres_passwords(url: str) -> Iterator[Password]:
    """Yield each password that may be sent to the servers of a URL of PostgreSQL."""
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        in_url = [unquote(parts.password)] if parts.password is not None else options.get("password", [])
    except ValueError:
        return
    if in_url:
        yield from (Password(text, "") for text in in_url)
    elif (variable := os.environ.get("PGPASSWORD")) is not None:
        yield Password(variable, "the password in PGPASSWORD ")
    elif passfile := _passfile(options):
        yield from _matching(passfile, _fields(parts, options))


def _passfile(options: Mapping[str, list[str]]) -> Path | None:
    named = options.get("passfile", [os.environ.get("PGPASSFILE", "")])[0]
    if named:
        return Path(named)
    try:
        return Path.home() / ".pgpass"
    except (RuntimeError, KeyError):  # a user without a home
        return None


def _fields(parts: SplitResult, options: Mapping[str, list[str]]) -> tuple[list[str], ...]:
    """Return hosts, ports, databases and users as a file's entries name them, whatever says so first."""
    environment = os.environ.get
    user = [unquote(parts.username)] if parts.username else options.get("user", [environment("PGUSER", "")])
    user = user if any(user) else [getpass.getuser()]
    database = unquote(parts.path.removeprefix("/"))
    databases = [database] if database else options.get("database", [environment("PGDATABASE") or user[0]])
    hosts = (
        [parts.hostname] if parts.hostname else _listed(options.get("host") or [environment("PGHOST", "")])
    )
    ports = (
        [str(parts.port)] if parts.port else _listed(options.get("port") or [environment("PGPORT", "5432")])
    )
    for place in [host for host in hosts if not host.startswith("/") and host.count(":") == 1]:
        ports.append(place.partition(":")[2])
    return [_as_in_file(host) for host in hosts], ports, databases, user


def _listed(texts: list[str]) -> list[str]:
    return [one for text in texts for one in text.split(",")]


def _as_in_file(host: str) -> str:
    """Return how entries name a host: that of a Unix socket, or of none, is called localhost."""
    return "localhost" if not host or host.startswith("/") else host.rpartition(":")[0] or host


def _matching(passfile: Path, wanted: tuple[list[str], ...]) -> Iterator[Password]:
    """Yield the password of the first entry that fits, or of all that fit one of several hosts."""
    try:
        with passfile.open(encoding="utf-8", errors="replace") as file:
            text = file.read(PASSFILE_BYTES_MAX)
    except OSError:
        return  # as to the driver: no password is in force
    for line in text.splitlines():
        fields = _FIELD.split(line.strip().replace(r"\\", "\n"), maxsplit=_FIELDS - 1)
        if line.lstrip().startswith("#") or len(fields) < _FIELDS:
            continue
        *patterns, password = (field.replace("\n", r"\\") for field in fields)
        if all(p == "*" or p in values for p, values in zip(patterns, wanted, strict=True)):
            yield Password(password, f"the password in {passfile} ")
            if len(wanted[0]) == 1:
                return
