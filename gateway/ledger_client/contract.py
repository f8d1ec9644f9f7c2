"""What the gateway asks of the ledger, however it reaches it."""

from types import TracebackType
from typing import Protocol, Self

from shared.wire import Answer, Question


class LedgerClient(Protocol):
    """The call to the ledger. An async context manager: inside it, questions can be asked."""

    async def __aenter__(self) -> Self:
        """Start; returns at once, whether or not the ledger can be reached yet."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; calls that are under way fail."""

    async def ask(self, question: Question, deadline: float) -> Answer:
        """Return the ledger's answer by `deadline`, a time of the running loop's clock, in seconds.

        Raises LedgerUnavailable when there is none: a credit may then be posted or not, now or later.
        """

    @property
    def in_flight(self) -> int:
        """How many questions wait for their answer."""
