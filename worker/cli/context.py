"""Opening the books for one command."""

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
Asked = ParamSpec("Asked")


def ask(
    settings: LedgerSettings,
    question: Callable[[AsyncEngine], Awaitable[Answer]],
    *,
    migrated: bool = True,
    patient: bool = False,
) -> Answer:
    """Return what `question` answers about the books that `[ledger]` names.

    Raises LedgerUnavailable, and SettingsError when the tables are not this version's, unless `migrated` is
    false. `patient` takes the time limit off statements.
    """
    return asyncio.run(ask_async(settings, question, migrated=migrated, patient=patient))


def read(
    settings: Settings,
    question: Callable[Concatenate[AsyncEngine, Currencies, Asked], Awaitable[Answer]],
    *asked: Asked.args,
    **named: Asked.kwargs,
) -> Answer:
    """Return what one of `worker.queries.queries`'s questions answers. Raises as `ask` does."""
    currencies = Currencies(settings.currencies)
    return ask(settings.ledger, lambda engine: question(engine, currencies, *asked, **named))


async def ask_async(
    settings: LedgerSettings,
    question: Callable[[AsyncEngine], Awaitable[Answer]],
    *,
    migrated: bool,
    patient: bool,
) -> Answer:
    """Return what `ask` returns."""
    engine = create_engine(settings, no_statement_timeout=patient)
    try:
        if migrated:
            await require_migrated(engine)
        return await question(engine)
    except LedgerRefused as error:
        raise SettingsError(f"[ledger] database_url: {redacted_url(settings)}: {error}") from error
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"no answer from {redacted_url(settings)}: {error}") from error
    finally:
        await engine.dispose()


def redacted_url(settings: LedgerSettings) -> str:
    """Return the database's URL without what may be secret in it."""
    return make_url(settings.database_url).set(query={}).render_as_string(hide_password=True)
