"""Which settings of the database let wins be lost: logged and counted while a worker runs, too.

Patroni may empty `synchronous_standby_names`, and an administrator may change a setting, at any time. The
settings of a role or of a database, such as `ALTER ROLE ... SET synchronous_commit`, hold for new connections
only: they are found when the pool has made one, which is also when commits begin to follow them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from shared.errors import LedgerUnavailable
from worker.ledger.transaction import Ledger

LOOK_EVERY_SECONDS: Final = 10.0

TellNumber = Callable[[int], None]
"""Takes how many weaknesses there are, as a gauge does."""

_log = structlog.get_logger()


def untold(_number: int) -> None:
    """Drop the number: the default of callers that have no metrics."""


class Weaknesses:
    """The weaknesses of one ledger's database, as they were found last."""

    def __init__(self, ledger: Ledger, tell: TellNumber = untold) -> None:
        """Take the ledger, and what is given their number."""
        self._ledger: Final = ledger
        self._tell: Final = tell
        self._known: list[str] = []

    async def look(self) -> None:
        """Look for them, and log those that are new or gone. Raises LedgerUnavailable."""
        found = await self._ledger.find_weaknesses()
        for weakness in found:
            if weakness not in self._known:
                _log.warning("wins can be lost", reason=weakness)
        for weakness in self._known:
            if weakness not in found:
                _log.info("wins can no longer be lost so", reason=weakness)
        self._known = found
        self._tell(len(found))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look every LOOK_EVERY_SECONDS while the block runs. No win waits for it."""
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            try:
                await self.look()
            except LedgerUnavailable as error:  # of which the batches log as well
                _log.debug("weaknesses of the database not found", reason=str(error))
            except Exception:  # noqa: BLE001  (wins are paid whether or not this is known)
                _log.exception("weaknesses of the database not found")
