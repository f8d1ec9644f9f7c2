"""Opening the books for one command."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerUnavailable
from shared.settings import LedgerSettings
from worker.database import create_engine, require_migrated

Answer = TypeVar("Answer")


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
    return asyncio.run(_ask(settings, question, migrated=migrated, patient=patient))


async def _ask(
    settings: LedgerSettings,
    question: Callable[[AsyncEngine], Awaitable[Answer]],
    *,
    migrated: bool,
    patient: bool,
) -> Answer:
    engine = create_engine(settings, patient=patient)
    try:
        if migrated:
            await require_migrated(engine)
        return await question(engine)
    except LedgerUnavailable as error:
        raise LedgerUnavailable(f"no answer from {place(settings)}: {error}") from error
    finally:
        await engine.dispose()


def place(settings: LedgerSettings) -> str:
    """Return the database's URL without what may be secret in it."""
    return make_url(settings.database_url).set(query={}).render_as_string(hide_password=True)
