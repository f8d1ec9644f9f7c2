"""What the gateway asks of the ledger, however it reaches it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from prometheus_client.registry import Collector

from shared.errors import LedgerUnavailable
from shared.wire import Answer, Question


class LedgerClient(ABC):
    """The call to the ledger. An async context manager: inside it, questions can be asked."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start; returns at once, whether or not the ledger can be reached yet."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; calls that are under way fail."""

    @abstractmethod
    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        """Return the ledger's answers by `deadline`, a time of the running loop's clock, in seconds.

        In place of an answer that is not there is the reason: a credit may be posted or not, now or later.
        """

    async def call(self, question: Question, deadline: float) -> Answer:
        """Return the answer to one question. Raises LedgerUnavailable when there is none."""
        (answer,) = await self.call_all([question], deadline)
        if isinstance(answer, LedgerUnavailable):
            raise answer
        return answer

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the answer to a question that goes before all that wait, and is not counted among them.

        It is for the gateway's own use, so overload never refuses it. Raises LedgerUnavailable.
        """
        return await self.call(question, deadline)

    @abstractmethod
    def is_overloaded(self, more: int = 0) -> bool:
        """Tell whether who asks now would only make all wait longer; so many more are about to ask."""

    @property
    def counters(self) -> Sequence[Collector]:
        """What the client counts itself, in no registry yet."""
        return ()

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """How many questions wait for their answer."""
