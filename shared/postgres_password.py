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
    """Yield each password that may be sent to the servers of a URL of PostgreSQL.

    Where an option says the same as the part of the URL before it, the option counts: so SQLAlchemy has it.
    """
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        fields = _fields(parts, options)
    except ValueError:
        return
    if in_url := options.get("password") or _written(parts.password):
        yield from (Password(text, "") for text in in_url)
    elif (variable := os.environ.get("PGPASSWORD")) is not None:
        yield Password(variable, "the password in PGPASSWORD ")
    elif passfile := _passfile(options):
        yield from _matching(passfile, fields)


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
    user = options.get("user") or _written(parts.username) or _variable("PGUSER") or [getpass.getuser()]
    databases = options.get("database") or _written(parts.path.removeprefix("/")) or _variable("PGDATABASE")
    hosts = _listed(options.get("host") or _host(parts) or _variable("PGHOST") or [""])
    ports = _listed(options.get("port") or _port(parts) or _variable("PGPORT") or ["5432"])
    for place in [host for host in hosts if not host.startswith("/") and host.count(":") == 1]:
        ports.append(place.partition(":")[2])
    return [_as_in_file(host) for host in hosts], ports, databases or user, user


def _written(text: str | None) -> list[str]:
    """Return a part of the URL; one that is empty is none."""
    return [unquote(text)] if text else []


def _variable(name: str) -> list[str]:
    return [value] if (value := os.environ.get(name)) else []


def _host(parts: SplitResult) -> list[str]:
    """Return the URL's host as it is written: urlsplit's is in lower case, and entries are not."""
    place = parts.netloc.rpartition("@")[2]
    return _written(parts.hostname if place.startswith("[") else place.partition(":")[0])


def _port(parts: SplitResult) -> list[str]:
    return [str(parts.port)] if parts.port else []


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
