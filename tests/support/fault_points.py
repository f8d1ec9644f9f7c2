"""Where a worker under test fails: after which of its steps, and how."""

from dataclasses import dataclass
from typing import Final, NamedTuple

DATABASE_STEPS: Final = (
    "read_wallets",
    "lock_wallets",
    "find_transfers",
    "insert",
    "insert_conflicts",
    "commit",
    "find",
)
"""Steps after which the database may be gone as well."""

CACHE_STEPS: Final = ("cache.recall", "cache.get", "cache.put half", "cache.put")

STEPS: Final = (*DATABASE_STEPS, *CACHE_STEPS, "reply", "reject", "ack")
"""The steps of a turn, in the names of what does them."""


class Died(BaseException):
    """The process was killed: nothing in it may catch this."""


class Fault(NamedTuple):
    """What goes wrong, right after which step."""

    step: str
    died: bool
    """The worker dies; otherwise it loses the database."""


@dataclass(slots=True)
class FaultPoint:
    """How a turn is to go, and how it went."""

    fault: Fault | None = None
    struck: bool = False
    committed: bool = False
    answered: bool = False
    """All that the turn took: what follows are replies, if anybody waits, and acks."""

    def begin(self, fault: Fault | None) -> None:
        """Begin a turn."""
        self.fault, self.struck, self.committed, self.answered = fault, False, False, False

    def after(self, step: str, outage: Exception | None = None) -> None:
        """Die or raise the outage if this is the step for it."""
        if self.fault is None or self.struck or self.fault.step != step:
            return
        self.struck = True
        raise Died if self.fault.died else (outage or ConnectionResetError())
