"""Checks that no two cells share a database or a virtual host: one's wins would be posted as the other's.

Two host names of one server can't be told apart here. Two other checks catch those: signed messages name
their cell, and a database stores the cell that it belongs to.
"""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from shared.broker_url import node_urls, vhost_of

MAIN: Final = "main"
"""The cell of the tables [broker], [ledger] and [cache]."""

CELL_NAME: Final = r"^[a-z][a-z0-9_-]{0,30}$"

_OWN: Final = "each cell has its own"
_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_POSTGRESQL_PORT: Final = 5432


class CellUrls(NamedTuple):
    """The URLs of one cell; None where they are not set."""

    table: str
    """The prefix of the cell's tables, such as "cells.brand2."; "" for the default cell."""

    broker_url: str | None
    database_url: str | None


def find_defect(cells: Mapping[str, CellUrls], integrations: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return what is wrong with the cells, in one line that begins with the key, or None."""
    if MAIN in cells and cells[MAIN].table:
        return f"[cells] {MAIN}: is the name of the cell that [broker], [ledger] and [cache] are"
    for name, table in integrations.items():
        cell = table.get("cell", MAIN)
        if cell != MAIN and (not isinstance(cell, str) or cell not in cells):
            known = ", ".join(sorted({MAIN, *cells}))
            return f"[integrations.{name}] cell: there is no such cell; there are {known}"
    for one, other in combinations(cells.values(), 2):
        if _vhosts(one.broker_url) & _vhosts(other.broker_url):
            return f"[{other.table}broker] url: is the virtual host of [{one.table}broker], too; {_OWN}"
        if _databases(one.database_url) & _databases(other.database_url):
            return f"[{other.table}ledger] database_url: is the database of [{one.table}ledger], too; {_OWN}"
    return None


def _vhosts(url: str | None) -> set[tuple[str, int, str]]:
    """Return host, port and virtual host for each node of the broker."""
    if url is None or url.startswith("memory:"):
        return set()
    found = set()
    for node in node_urls(url):
        parts = urlsplit(node)
        found.add((parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0), vhost_of(node)))
    return found


def _databases(url: str | None) -> set[tuple[str, ...]]:
    """Return the database on each of its servers; the empty set for an unreadable URL, which is refused elsewhere."""
    if url is None:
        return set()
    try:
        parts = urlsplit(url)
        if parts.scheme.startswith("sqlite"):
            return {("sqlite", parts.path)} if parts.path else set()
        options = parse_qs(parts.query)
        name = options.get("database", [parts.path.removeprefix("/")])[0]
        return {(host, port, name) for host, port in _hosts(parts.hostname, parts.port, options)}
    except ValueError:
        return set()


def _hosts(host: str | None, port: int | None, options: Mapping[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Yield host and port of each server that a database URL names."""
    default = options.get("port", [str(port or _POSTGRESQL_PORT)])[0]
    if host:
        yield host, default
    for named in options.get("host", []):
        name, colon, own = named.rpartition(":")
        yield (name.lower(), own) if colon and own.isdigit() else (named.lower(), default)
