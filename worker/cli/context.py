"""Runs a function with the database of one cell, for the length of one command."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerRefused, LedgerUnavailable, SettingsError
from shared.money import Currencies
from shared.settings import LedgerSettings, Settings
from worker.database.engine import create_engine
from worker.database.migrate import require_migrated

Answer = TypeVar("Answer")
Params = ParamSpec("Params")


def call_with_engine(
    settings: LedgerSettings,
    function: Callable[[AsyncEngine], Awaitable[Answer]],
    *,
    requires_migrated: bool = True,
    no_statement_timeout: bool = False,
) -> Answer:
    """Call `function` with an engine of the database that `[ledger]` names, and return its result.

    Raises LedgerUnavailable. Raises SettingsError if the database refuses this process, or if the tables are of
    another version, unless `requires_migrated` is false.
    """
    return asyncio.run(
        call_with_engine_async(
            settings,
            function,
            requires_migrated=requires_migrated,
            no_statement_timeout=no_statement_timeout,
        )
    )


def run_query(
    settings: Settings,
    query: Callable[Concatenate[AsyncEngine, Currencies, Params], Awaitable[Answer]],
    *args: Params.args,
    **kwargs: Params.kwargs,
) -> Answer:
    """Run a query of `worker.queries.queries` in the cell of these settings. Raises as `call_with_engine` does."""
    currencies = Currencies(settings.currencies)
    return call_with_engine(settings.ledger, lambda engine: query(engine, currencies, *args, **kwargs))


async def call_with_engine_async(
    settings: LedgerSettings,
    function: Callable[[AsyncEngine], Awaitable[Answer]],
    *,
    requires_migrated: bool = True,
    no_statement_timeout: bool = False,
) -> Answer:
    """Do as `call_with_engine` does, within an event loop that runs already."""
    engine = create_engine(settings, no_statement_timeout=no_statement_timeout)
    try:
        if requires_migrated:
            await require_migrated(engine)
        return await function(engine)
    except LedgerRefused as error:
        raise SettingsError(f"[ledger] database_url: {redacted_url(settings)}: {error}") from error
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"no answer from {redacted_url(settings)}: {error}") from error
    finally:
        await engine.dispose()


def redacted_url(settings: LedgerSettings) -> str:
    """Return the database's URL without the parts that may be secret: its password and its parameters."""
    return make_url(settings.database_url).set(query={}).render_as_string(hide_password=True)
