"""Checks again and again for weaknesses, the settings of the database by which wins may be lost, and logs them.

Patroni may empty `synchronous_standby_names`, and an administrator may change a setting, at any time. The
settings of a role or a database, such as `ALTER ROLE ... SET synchronous_commit`, apply to new connections only:
they are found once the pool has opened one, which is also when commits start to follow them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from shared.errors import LedgerUnavailable
from worker.ledger.transaction import Ledger

CHECK_INTERVAL_SECONDS: Final = 10.0

ReportCount = Callable[[int], None]
"""Takes the number of weaknesses, as the setter of a gauge."""

_log = structlog.get_logger()


def ignore_count(_number: int) -> None:
    """Do nothing: the default of callers that have no metrics."""


class Weaknesses:
    """The weaknesses of one ledger's database, as of the last check."""

    def __init__(self, ledger: Ledger, report: ReportCount = ignore_count) -> None:
        """Take the ledger, and the function that takes the number of weaknesses after each check."""
        self._ledger: Final = ledger
        self._report: Final = report
        self._known: list[str] = []

    async def check(self) -> None:
        """Find the weaknesses, and log those that are new or gone. Raises LedgerUnavailable."""
        found = await self._ledger.find_weaknesses()
        for weakness in found:
            if weakness not in self._known:
                _log.warning("wins can be lost", reason=weakness)
        for weakness in self._known:
            if weakness not in found:
                _log.info("wins can no longer be lost so", reason=weakness)
        self._known = found
        self._report(len(found))

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Check every CHECK_INTERVAL_SECONDS while the block runs. No win waits for it."""
        watch = asyncio.create_task(self._check_repeatedly())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait([watch])

    async def _check_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            try:
                await self.check()
            except LedgerUnavailable as error:  # for debugging only: the batches log that, too
                _log.debug("weaknesses of the database not found", reason=str(error))
            except Exception:  # noqa: BLE001  (wins are paid whether or not this is known)
                _log.exception("weaknesses of the database not found")
