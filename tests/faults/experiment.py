"""One fault: steady traffic, the blow, the healing, and then the verdict on all that was sent and said."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from simulator.history import GAP_SECONDS_MIN, Attempt, ReplyMeaning, Service, Verdict, served
from simulator.senders import Behaviour
from tests.faults.books import read_books
from tests.faults.rig import Rig, SettingsOf, rigged
from tests.support.servers import Servers

WINS_PER_SECOND: Final = 60.0
BEFORE_SECONDS: Final = 1.5
AFTER_SECONDS: Final = 2.0
WINS_AFTER_MIN: Final = 3
"""So many at least are due after the healing, however seldom they come."""

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

    wins_per_second: float = WINS_PER_SECOND
    hurry: float = HURRY
    settings_of: SettingsOf | None = None
    loses: bool = False
    """Whether wins are lost that were told as paid, as where no commit waits for a replica."""

    @property
    def behaviour(self) -> Behaviour:
        """What providers do. A lost win may be paid with whatever content comes first: none is altered."""
        usual = Behaviour(hurry=self.hurry, retries=self.retries)
        return msgspec.structs.replace(usual, altered=0.0) if self.loses else usual


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
    """From the end of the healing, or from when another had taken the place of what had failed, to the end of
    the first win that was sent after that and paid."""

    dead: int
    """Messages that were put aside: none of these was poison."""

    audit: str
    """What `verify --full` found wrong; empty if all holds."""

    lost: int = 0
    """Wins that had been told as paid and were not in the books of the next primary. All were sent again, and
    what was told of them since is judged like everything else."""

    lost_is_due: bool = False
    """Whether the fault is one that loses wins; if it has lost none, nothing was tried."""

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, doubled, or untrue."""
        as_due = self.lost_is_due is bool(self.lost)
        return as_due and self.verdict.holds and not (self.dead or self.audit or self.untold)

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
        found += [f"{self.lost} wins were lost"] * (self.lost_is_due is not bool(self.lost))
        return "\n".join([*found, self.audit]).strip()


async def run(servers: Servers, fault: Fault) -> Trial:
    """Let a system undergo a fault."""
    async with rigged(servers, fault.behaviour, settings_of=fault.settings_of) as rig:
        async with asyncio.TaskGroup() as group:  # when the strike fails, nobody sends on
            group.create_task(rig.senders.send(fault.wins_per_second, SECONDS_MAX))
            await asyncio.sleep(BEFORE_SECONDS)
            struck_at = time.time()
            await fault.strike(rig)
            healed_at = time.time()
            await asyncio.sleep(max(AFTER_SECONDS, WINS_AFTER_MIN / fault.wins_per_second))
            rig.senders.stop()
        dead = await rig.until_drained()
        attempts, confirmed = rig.senders.attempts, rig.confirmed()
        binding = [attempt for attempt in attempts if not rig.loss.excuses(attempt)]
        gap_seconds_min = max(GAP_SECONDS_MIN, WINS_AFTER_MIN / fault.wins_per_second)
        audited = await rig.system.command("verify", "--full")
        return Trial(
            fault=fault.name,
            retries=fault.retries,
            service=msgspec.structs.replace(served(attempts, gap_seconds_min), unpaid=served(binding).unpaid),
            verdict=rig.loss.check_history(attempts, await read_books(rig.engine), confirmed),
            confirmed=len(confirmed),
            lasted_seconds=healed_at - struck_at,
            recovered_seconds=_recovered(attempts, rig.replaced_at or healed_at),
            dead=dead,
            audit=audited.stdout + audited.stderr if audited.returncode else "",
            lost=len(rig.loss.identities),
            lost_is_due=fault.loses,
        )


def _recovered(attempts: list[Attempt], since: float) -> float:
    ends = [a.ended_at for a in attempts if a.meaning is ReplyMeaning.PAID and a.sent_at >= since]
    return min(ends, default=float("inf")) - since
