"""Finds the password that PostgreSQL's driver will use: from the URL, else a variable, else a password file.

asyncpg follows libpq in this, except for service files, which it reads from a DSN that it isn't given here.
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
    """A password, and where it comes from."""

    text: str
    source: str
    """Text that follows the setting's name in a message; "" for the URL itself."""


def postgres_passwords(url: str) -> Iterator[Password]:
    """Yield each password that may be sent to the servers of a PostgreSQL URL.

    Where an option repeats a part of the URL, the option wins, as in SQLAlchemy.
    """
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        fields = _fields(parts, options)
    except ValueError:
        return
    if in_url := options.get("password") or _url_part(parts.password):
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
    """Return hosts, ports, databases and users as a password file's entries name them, from the URL or variables."""
    user = options.get("user") or _url_part(parts.username) or _variable("PGUSER") or [getpass.getuser()]
    databases = options.get("database") or _url_part(parts.path.removeprefix("/")) or _variable("PGDATABASE")
    hosts = _listed(options.get("host") or _host(parts) or _variable("PGHOST") or [""])
    ports = _listed(options.get("port") or _port(parts) or _variable("PGPORT") or ["5432"])
    for host_and_port in [host for host in hosts if not host.startswith("/") and host.count(":") == 1]:
        ports.append(host_and_port.partition(":")[2])
    return [_as_in_file(host) for host in hosts], ports, databases or user, user


def _url_part(text: str | None) -> list[str]:
    """Return a part of the URL as a list; an empty part counts as missing."""
    return [unquote(text)] if text else []


def _variable(name: str) -> list[str]:
    return [value] if (value := os.environ.get(name)) else []


def _host(parts: SplitResult) -> list[str]:
    """Return the URL's host as it is written: urlsplit lowers its case, and password files keep theirs."""
    host_and_port = parts.netloc.rpartition("@")[2]
    return _url_part(parts.hostname if host_and_port.startswith("[") else host_and_port.partition(":")[0])


def _port(parts: SplitResult) -> list[str]:
    return [str(parts.port)] if parts.port else []


def _listed(texts: list[str]) -> list[str]:
    return [one for text in texts for one in text.split(",")]


def _as_in_file(host: str) -> str:
    """Return the name that a password file has for a host: a Unix socket, or none, is called localhost."""
    return "localhost" if not host or host.startswith("/") else host.rpartition(":")[0] or host


def _matching(passfile: Path, wanted: tuple[list[str], ...]) -> Iterator[Password]:
    """Yield the password of the first matching entry; with several hosts, of every matching entry."""
    try:
        with passfile.open(encoding="utf-8", errors="replace") as file:
            text = file.read(PASSFILE_BYTES_MAX)
    except OSError:
        return  # as for the driver, no password is in force
    for line in text.splitlines():
        fields = _FIELD.split(line.strip().replace(r"\\", "\n"), maxsplit=_FIELDS - 1)
        if line.lstrip().startswith("#") or len(fields) < _FIELDS:
            continue
        *patterns, password = (field.replace("\n", r"\\") for field in fields)
        if all(p == "*" or p in values for p, values in zip(patterns, wanted, strict=True)):
            yield Password(password, f"the password in {passfile} ")
            if len(wanted[0]) == 1:
                return
