"""Cells: brands whose players are separate, each with its own vhost, database, cache and workers.

`[broker]`, `[ledger]` and `[cache]` are the default cell, named `main`; `[cells.NAME.broker]` and so on define
further ones. A named cell's tables inherit from the default cell's, except for the URLs, which must be its
own. Signing keys may be shared, because a message signed in a named cell names that cell.

`settings_of` returns the settings of one cell as ordinary settings, so code that works with one cell need not
know about others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

from shared.cell_places import MAIN
from shared.errors import SettingsError
from shared.settings import MEMORY, BrokerSettings, CacheSettings, CellSettings, LedgerSettings, Settings

__all__ = ["MAIN", "Part", "cell_of", "cells_of", "naming_cell", "settings_of"]


class Part(StrEnum):
    """A server of a cell whose URL a process may need; the value completes an error message."""

    BROKER = "broker] url"
    LEDGER = "ledger] database_url"


_TABLES: Final = ("broker", "ledger", "cache")


def cells_of(settings: Settings) -> tuple[str, ...]:
    """Return the names of all cells, the default one first.

    Beside named cells, the default cell exists if its broker or database is set or an integration belongs to it.
    """
    if not settings.cells:
        return (settings.broker.cell,)
    is_set = "url" in settings.broker.model_fields_set or "database_url" in settings.ledger.model_fields_set
    if is_set or any(cell_of(settings, name) == MAIN for name in settings.integrations):
        return (MAIN, *settings.cells)
    return tuple(settings.cells)


def cell_of(settings: Settings, integration: str) -> str:
    """Return the cell of an integration."""
    default = MAIN if settings.cells else settings.broker.cell
    return str(settings.integrations[integration].get("cell", default))


def settings_of(settings: Settings, cell: str | None, *needed: Part) -> Settings:
    """Return the settings of one cell, with its own integrations; `cell` None means the only one.

    Raises SettingsError where there is no such cell, where there are several and none is named, or where a server
    in `needed` has no URL.
    """
    known = cells_of(settings)
    if cell is None and len(known) > 1:
        raise SettingsError(f"there are several cells: name one with --cell, of {', '.join(known)}")
    name = known[0] if cell is None else cell
    if name not in known:
        raise SettingsError(f"there is no cell {name!r}; there are {', '.join(known)}")
    if not settings.cells:
        return settings
    own = {each: table for each, table in settings.integrations.items() if cell_of(settings, each) == name}
    update: dict[str, object] = {"cells": {}, "integrations": own}
    if name == MAIN:
        _require_urls("", settings.broker, settings.ledger, needed)
    else:
        named = settings.cells[name]
        _require_urls(f"cells.{name}.", named.broker, named.ledger, needed)
        update |= _tables(settings, name, named)
    return settings.model_copy(update=update)


def _require_urls(table: str, broker: BrokerSettings, ledger: LedgerSettings, needed: tuple[Part, ...]) -> None:
    """Raise SettingsError if a needed server's URL is not set: with several cells there is no default."""
    is_set = {
        Part.BROKER: "url" in broker.model_fields_set,
        Part.LEDGER: "database_url" in ledger.model_fields_set,
    }
    for part in needed:
        if not is_set[part]:
            raise SettingsError(f"[{table}{part}: is not set, and each cell has its own")


def _tables(
    settings: Settings, name: str, cell: CellSettings
) -> dict[str, BrokerSettings | LedgerSettings | CacheSettings]:
    """Return the tables of a named cell, completed from those of the default cell."""
    broker, ledger = {"url": ""} | _given(cell.broker), {"database_url": ""} | _given(cell.ledger)
    cache = {"url": MEMORY} | _given(cell.cache)
    return {
        "broker": settings.broker.in_cell(name, broker),
        "ledger": settings.ledger.model_copy(update=ledger),
        "cache": settings.cache.model_copy(update=cache),
    }


def _given(table: BrokerSettings | LedgerSettings | CacheSettings) -> dict[str, object]:
    return {name: getattr(table, name) for name in table.model_fields_set}


@contextmanager
def naming_cell(cell: str) -> Iterator[None]:
    """Rewrite a SettingsError about a table of the default cell to name this cell's table."""
    try:
        yield
    except SettingsError as error:
        message = str(error)
        for table in _TABLES:
            if cell != MAIN and message.startswith(f"[{table}]"):
                raise SettingsError(message.replace(f"[{table}]", f"[cells.{cell}.{table}]", 1)) from error
        raise
