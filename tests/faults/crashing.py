"""A worker that kills itself after a given step: `python -m tests.faults.crashing STEP run`.

It is the real worker, told only where to die, and dies as by SIGKILL: nothing is flushed, closed or said.
"""

import asyncio
import os
import signal
import sys
from functools import wraps
from typing import Any, Final

from worker.cli import app
from worker.ledger.service import LedgerService
from worker.ledger.statements_postgres import PostgresStatements
from worker.ledger.transaction import Ledger
from worker.messaging.batches import BatchProcessor

TURNS_BEFORE: Final = 20
"""So many times it does the step and lives."""

WRITTEN_SECONDS: Final = 0.05
"""After this what was handed to the loop to be written is on its way."""

STEPS: Final = {
    "before the commit": (PostgresStatements, "insert", False),
    "after the commit": (Ledger, "post_new", True),
    "after the cache was told": (LedgerService, "_post_optimistic", True),
    "after the reply, before the ack": (BatchProcessor, "_reply", True),
    "after the ack": (BatchProcessor, "_settle", True),
}
"""What does the step, and whether it dies after it or before."""


def die_at(step: str) -> None:
    """Have this process die at a step."""
    owner, name, after = STEPS[step]
    original, left = getattr(owner, name), TURNS_BEFORE

    @wraps(original)
    async def fatal(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left > 0:
            return await original(*arguments)
        if after:
            await original(*arguments)
            await asyncio.sleep(WRITTEN_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    setattr(owner, name, fatal)


if __name__ == "__main__":
    die_at(sys.argv.pop(1))
    app.main()
