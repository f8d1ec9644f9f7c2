"""One fault: steady traffic, the blow, the healing, and then the verdict on all that was sent and said."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from tests.faults.books import read_books
from tests.faults.rig import Rig, rigged
from tests.servers import Servers
from tests.simulator.history import Attempt, Said, Service, Verdict, judge, served
from tests.simulator.senders import Manners

WINS_PER_SECOND: Final = 60.0
BEFORE_SECONDS: Final = 1.5
AFTER_SECONDS: Final = 2.0
SECONDS_MAX: Final = 120.0
HURRY: Final = 10.0
"""Pauses before retries are so many times shorter than the providers' own."""

Strike = Callable[[Rig], Awaitable[None]]
"""Does the damage, lets it last, and heals it."""


class Fault(msgspec.Struct, frozen=True):
    """Something that goes wrong."""

    name: str
    strike: Strike
    in_ci: bool = False
    retries: bool = True
    """Whether providers send a win again that was not answered. If not, the late queue alone pays it."""


class Trial(msgspec.Struct, frozen=True):
    """What a fault did."""

    fault: str
    retries: bool
    service: Service
    verdict: Verdict
    confirmed: int
    """Credits that the broker is known to have taken upon itself, each of which must be posted."""

    lasted_seconds: float
    recovered_seconds: float
    """From the end of the healing to the end of the first win that was sent after it and paid."""

    dead: int
    """Messages that were put aside: none of these was poison."""

    audit: str
    """What `verify --full` found wrong; empty if all holds."""

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled, or untrue."""
        return self.verdict.holds and not (self.dead or self.audit or self.untold)

    @property
    def untold(self) -> int:
        """Wins that were never told as paid, though their providers went on asking."""
        return self.service.unpaid if self.retries else 0

    @property
    def complaints(self) -> str:
        """What does not hold, for people."""
        found = [f"{wrong}: {', '.join(texts[:5])}" for wrong, texts in self.verdict.found.items() if texts]
        found += [f"{self.dead} messages were put aside"] * bool(self.dead)
        found += [f"{self.untold} wins were never told as paid"] * bool(self.untold)
        return "\n".join([*found, self.audit]).strip()


async def undergo(servers: Servers, fault: Fault) -> Trial:
    """Let a system undergo a fault."""
    async with rigged(servers, Manners(hurry=HURRY, retries=fault.retries)) as rig:
        async with asyncio.TaskGroup() as group:  # when the strike fails, nobody sends on
            group.create_task(rig.senders.send(WINS_PER_SECOND, SECONDS_MAX))
            await asyncio.sleep(BEFORE_SECONDS)
            struck_at = time.time()
            await fault.strike(rig)
            healed_at = time.time()
            await asyncio.sleep(AFTER_SECONDS)
            rig.senders.stop()
        dead = await rig.until_drained()
        attempts, confirmed = rig.senders.attempts, rig.confirmed()
        audited = await rig.system.command("verify", "--full")
        return Trial(
            fault=fault.name,
            retries=fault.retries,
            service=served(attempts),
            verdict=judge(attempts, await read_books(rig.engine), confirmed=confirmed),
            confirmed=len(confirmed),
            lasted_seconds=healed_at - struck_at,
            recovered_seconds=_recovered(attempts, healed_at),
            dead=dead,
            audit=audited.stdout + audited.stderr if audited.returncode else "",
        )


def _recovered(attempts: list[Attempt], healed_at: float) -> float:
    ends = [a.ended_at for a in attempts if a.said is Said.PAID and a.sent_at >= healed_at]
    return min(ends, default=float("inf")) - healed_at
