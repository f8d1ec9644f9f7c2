"""The gateway's call to the ledger, over RabbitMQ or in the same process."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from prometheus_client.registry import Collector

from gateway.ledger_client.concurrency import ConcurrencyLimit
from shared.errors import LedgerUnavailable
from shared.wire import Answer, Question


class LedgerClient(ABC):
    """Sends operations and queries to the ledger. It is an async context manager: inside it, calls can be made."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        """Take the limit that the calls are counted in, which load shedding reads."""
        self.limit: Final = limit

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start; return at once, whether or not the ledger can be reached yet."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; calls that are under way fail."""

    @abstractmethod
    async def call_all(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer | LedgerUnavailable]:
        """Return the ledger's replies by `deadline`, a time of the running loop's clock, in seconds.

        In place of a missing reply stands the reason. That credit may have been posted or not, or be posted later.
        """

    async def call(self, question: Question, deadline: float) -> Answer:
        """Return the reply to one operation or query. Raises LedgerUnavailable when there is none."""
        (reply,) = await self.call_all([question], deadline)
        if isinstance(reply, LedgerUnavailable):
            raise reply
        return reply

    async def call_first(self, question: Question, deadline: float) -> Answer:
        """Return the reply to a call that overtakes all that wait and is not counted in the limit.

        It is for the gateway's own probes, which overload must not refuse. Raises LedgerUnavailable.
        """
        return await self.call(question, deadline)

    @property
    def counters(self) -> Sequence[Collector]:
        """The client's own metrics, not registered yet."""
        return ()
