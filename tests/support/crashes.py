"""Workers that can be made to fail between any two steps.

The worker is the real one, down to the ledger's statements; only RabbitMQ is a few lists in memory.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.errors import LedgerUnavailable
from shared.operations import AnyOperation
from shared.outcome import Balance, Outcome
from shared.queries import Query, QueryReply
from shared.wire import Batch
from tests.support.fault_points import Died, Fault, FaultPoint
from tests.support.queues import Queues, UnluckyChannel, batch_in, is_expired
from tests.support.system import KEYS
from worker.ledger.cache.outcomes import MemoryCache
from worker.ledger.planner import Plan
from worker.ledger.service import LedgerService
from worker.ledger.state import Identity, Transfer
from worker.ledger.transaction import Ledger
from worker.messaging.batches import BatchProcessor
from worker.messaging.dead_letter_publisher import DeadLetterPublisher
from worker.messaging.deliveries import DeliveryBuffer
from worker.messaging.metrics import WorkerMetrics

METRICS: Final = WorkerMetrics()


class UnluckyStatements:
    """The real statements, each followed by a chance to fail."""

    def __init__(self, statements: object, luck: FaultPoint) -> None:
        self._statements = statements
        self._luck = luck

    def __getattr__(self, name: str) -> Callable[..., Any]:
        statement = getattr(self._statements, name)

        async def execute(connection: AsyncConnection, *arguments: object) -> object:
            result = await statement(connection, *arguments)
            if name == "insert" and _commits_by_itself(connection):
                self._luck.committed = True
            self._luck.after(name)
            return result

        return execute


def _commits_by_itself(connection: AsyncConnection) -> bool:
    """Tell whether a statement is a transaction by itself, which the server is not asked: it can't know."""
    options = connection.sync_connection.get_execution_options() if connection.sync_connection else {}
    return options.get("isolation_level") == "AUTOCOMMIT"


class UnluckyLedger(Ledger):
    """The real ledger, which can fail anywhere, and after its commit."""

    def __init__(self, engine: AsyncEngine, luck: FaultPoint) -> None:
        super().__init__(engine)
        self._luck = luck
        self._statements = UnluckyStatements(self._statements, luck)  # type: ignore[assignment,misc]

    async def post_new(self, credits_: Sequence[AnyOperation]) -> Plan | None:
        planned = await super().post_new(credits_)
        if planned is not None:
            self._luck.committed = True
            self._luck.after("commit", LedgerUnavailable("lost after the commit"))
        return planned

    async def post(self, credits_: Sequence[AnyOperation]) -> Plan:
        planned = await super().post(credits_)
        self._luck.committed = True
        self._luck.after("commit", LedgerUnavailable("lost after the commit"))
        return planned

    async def find(self, lookups: Collection[Query]) -> dict[Query, Balance]:
        found = await super().find(lookups)
        self._luck.after("find", LedgerUnavailable("lost after a lookup"))
        return found


class UnluckyBookkeeper(LedgerService):
    """The real bookkeeper, and whether it came to its answers."""

    def __init__(self, ledger: Ledger, cache: MemoryCache, luck: FaultPoint) -> None:
        super().__init__(ledger, cache)
        self._luck = luck

    async def answer(
        self, operations: Sequence[AnyOperation], queries: Sequence[Query]
    ) -> tuple[list[Outcome], list[QueryReply]]:
        answers = await super().answer(operations, queries)
        self._luck.answered = True
        return answers


class UnluckyCache(MemoryCache):
    """A cache that never lies, but may take only half of what it is given."""

    luck: FaultPoint

    def get_local(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        found = super().get_local(identities)
        self.luck.after("cache.recall")
        return found

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:
        found = await super().get(identities)
        self.luck.after("cache.get")
        return found

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        super().put(dict(list(transfers.items())[::2]))
        self.luck.after("cache.put half")
        super().put(transfers)
        self.luck.after("cache.put")

    def forget(self, every: int) -> None:
        """Forget every such entry."""
        for identity in list(self._transfers)[::every]:
            del self._transfers[identity]


class UnluckyWorker:
    """A worker process, its cache apart: that outlives it."""

    def __init__(self, engine: AsyncEngine, cache: UnluckyCache, queues: Queues) -> None:
        self.luck = FaultPoint()
        cache.luck = self.luck
        self._inbox = DeliveryBuffer()
        self._live = UnluckyChannel(queues, queues.live, self.luck)
        self._late = UnluckyChannel(queues, queues.late, self.luck)
        live: Any = self._live
        bookkeeper = UnluckyBookkeeper(UnluckyLedger(engine, self.luck), cache, self.luck)
        aside = DeadLetterPublisher(live, METRICS, KEYS)
        self._turns = BatchProcessor(
            bookkeeper, METRICS, self._inbox, live, aside, KEYS, "worker", batch_operations_max=1_000
        )

    def take(self) -> tuple[list[Batch], list[Batch]]:
        """Receive all deliveries; return which batches the next turn takes, live ones and late ones."""
        self._live.deliver(self._inbox.live)
        self._late.deliver(self._inbox.late)
        self._inbox.late_rests_until = 0.0  # as a moment after an outage
        live = [batch_in(arrival.message) for arrival in self._inbox.live]
        late = [batch_in(arrival.message) for arrival in self._inbox.late]
        return [b for b in live if not is_expired(b)], late[:1]

    @property
    def has_work(self) -> bool:
        """Tell whether something that was delivered is not settled."""
        return bool(self._live.unsettled or self._late.unsettled)

    async def work(self, fault: Fault | None) -> bool:
        """Do a turn and return whether the worker lives on."""
        self.luck.begin(fault)
        try:
            await self._turns.process_next()
        except Died:
            self._live.return_unsettled()
            self._late.return_unsettled()
            return False
        return True
