"""The database is restored to a moment ago under traffic, by the scripts of deploy/backup.

Wins that were told as paid since that moment are lost, and sent again by their providers. Those told before
it must be in the books, and so must everything that is told afterwards.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from tests.faults.books import read_books
from tests.faults.experiment import Fault
from tests.faults.injections import BRIEF_SECONDS
from tests.faults.loss import lost_between
from tests.faults.rig import POLL_SECONDS, Rig
from tests.support.servers.restorable import RestorableServer

MOMENT: Final = "a-moment-ago"
PRIMARY_WITHIN_SECONDS: Final = 30


async def restore_to_a_moment_ago(rig: Rig) -> None:
    """Back the database up, let a moment pass, restore it to before that, and send again what is lost."""
    database = rig.servers.postgres
    assert isinstance(database, RestorableServer)
    base = await asyncio.to_thread(database.back_up)
    moment = time.time()
    await _ask(rig, f"SELECT pg_create_restore_point('{MOMENT}')")
    await asyncio.sleep(BRIEF_SECONDS)
    await asyncio.to_thread(database.stop)
    await asyncio.to_thread(database.restore, base, "name", MOMENT)
    restored_at = time.time()
    await rig.engine.dispose()
    await asyncio.to_thread(database.start)
    async with asyncio.timeout(PRIMARY_WITHIN_SECONDS):
        while await _ask(rig, "SELECT pg_is_in_recovery()"):
            await asyncio.sleep(POLL_SECONDS)
    rig.replaced_at = time.time()
    attempts = rig.senders.attempts
    rig.loss = lost_between(attempts, await read_books(rig.engine), restored_at)
    before = [attempt for attempt in attempts if attempt.ended_at < moment and rig.loss.excuses(attempt)]
    assert not before, f"told before the moment, and lost: {before[:5]}"
    await rig.senders.send_again(rig.loss.identities)


async def _ask(rig: Rig, statement: str) -> object:
    async with rig.engine.connect() as connection:
        return (await connection.exec_driver_sql(statement)).scalar()


_kinds = [Fault("the database is restored to a moment ago", restore_to_a_moment_ago, loses=True)]
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _kinds}
"""By name."""
