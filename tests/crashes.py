"""Workers that can be made to fail between any two steps, and the queues that deliver to them again.

The worker is the real one, down to the ledger's statements; only RabbitMQ is a few lists in memory.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from shared.credit import Credit
from shared.errors import LedgerUnavailable
from shared.message_keys import Purpose
from shared.outcome import Holder
from shared.topology import DEAD_QUEUE
from shared.wire import (
    MESSAGE_TYPE,
    Answer,
    Batch,
    BatchReply,
    Lookup,
    Question,
    encode,
    read_batch,
    read_replies,
    unix_ms,
)
from tests.system import KEYS
from worker.aside import Aside
from worker.bookkeeper import Bookkeeper
from worker.dedup import MemoryCache
from worker.inbox import Arrival, Inbox
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.posting import Identity, Plan, Transfer
from worker.turns import Turns

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

METRICS: Final = WorkerMetrics()
UNTIL_THE_END: Final = 10**15
"""A deadline, in Unix milliseconds, that no test lives to see."""


class Died(BaseException):
    """The process was killed: nothing in it may catch this."""


class Fault(NamedTuple):
    """What goes wrong, right after which step."""

    step: str
    died: bool
    """The worker dies; otherwise it loses the database."""


@dataclass(slots=True)
class Luck:
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


class UnluckyStatements:
    """The real statements, each followed by a chance to fail."""

    def __init__(self, statements: object, luck: Luck) -> None:
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

    def __init__(self, engine: AsyncEngine, luck: Luck) -> None:
        super().__init__(engine)
        self._luck = luck
        self._statements = UnluckyStatements(self._statements, luck)  # type: ignore[misc]

    async def post_new(self, credits_: Sequence[Credit]) -> Plan | None:
        planned = await super().post_new(credits_)
        if planned is not None:
            self._luck.committed = True
            self._luck.after("commit", LedgerUnavailable("lost after the commit"))
        return planned

    async def post(self, credits_: Sequence[Credit]) -> Plan:
        planned = await super().post(credits_)
        self._luck.committed = True
        self._luck.after("commit", LedgerUnavailable("lost after the commit"))
        return planned

    async def find(self, lookups: Collection[Lookup]) -> dict[Lookup, Holder]:
        found = await super().find(lookups)
        self._luck.after("find", LedgerUnavailable("lost after a lookup"))
        return found


class UnluckyBookkeeper(Bookkeeper):
    """The real bookkeeper, and whether it came to its answers."""

    def __init__(self, ledger: Ledger, cache: MemoryCache, luck: Luck) -> None:
        super().__init__(ledger, cache)
        self._luck = luck

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        answers = await super().answer(questions)
        self._luck.answered = True
        return answers


class UnluckyCache(MemoryCache):
    """A cache that never lies, but may take only half of what it is given."""

    luck: Luck

    def recall(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        found = super().recall(identities)
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


@dataclass(slots=True)
class Queues:
    """A shard's queue, the late one and the dead one, and what came back to the gateways."""

    live: deque[Batch] = field(default_factory=deque)
    late: deque[Batch] = field(default_factory=deque)
    dead: list[bytes] = field(default_factory=list)
    replies: list[tuple[str, BatchReply]] = field(default_factory=list)


class UnluckyChannel:
    """What a worker does on a channel, done to the queues."""

    def __init__(self, queues: Queues, source: deque[Batch], luck: Luck) -> None:
        self._queues, self._source, self._luck = queues, source, luck
        self._tags = count(1)
        self.unsettled: dict[int, Batch] = {}

    def deliver(self, inbox: deque[Arrival]) -> None:
        """Deliver all that waits in the channel's queue."""
        while self._source:
            batch, tag = self._source.popleft(), next(self._tags)
            self.unsettled[tag] = batch
            properties = Basic.Properties(message_type=MESSAGE_TYPE)
            header = ContentHeader(properties=properties)
            deliver = Basic.Deliver(delivery_tag=tag, routing_key="shard")
            channel: Any = self
            body = KEYS.sign(Purpose.BATCH, encode(batch))
            message = DeliveredMessage(deliver, header, body, channel)
            inbox.append(Arrival(message, 0.0 if is_expired(batch) else UNTIL_THE_END))

    def return_unsettled(self) -> None:
        """Put back, in its order, what was delivered and not settled, as a broker does for the dead."""
        self._source.extendleft(reversed(self.unsettled.values()))
        self.unsettled.clear()

    async def basic_ack(self, delivery_tag: int, *, multiple: bool = False, wait: bool) -> None:
        del wait
        for tag in [
            tag for tag in self.unsettled if tag == delivery_tag or (multiple and tag < delivery_tag)
        ]:
            del self.unsettled[tag]
        self._luck.after("ack")

    async def basic_reject(self, delivery_tag: int, *, requeue: bool, wait: bool) -> None:
        del wait
        assert not requeue
        self._queues.late.append(self.unsettled.pop(delivery_tag))
        self._luck.after("reject")

    async def basic_publish(
        self,
        body: bytes,
        *,
        routing_key: str,
        properties: Basic.Properties,
        mandatory: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  (aiormq's own)
        wait: bool = True,
    ) -> None:
        del wait, timeout
        assert properties.message_type == MESSAGE_TYPE
        if routing_key == DEAD_QUEUE:
            assert mandatory
            self._queues.dead.append(body)
            return
        replies = read_replies(KEYS, body, MESSAGE_TYPE, routing_key)
        self._queues.replies += ((routing_key, reply) for reply in replies.batches)
        self._luck.after("reply")


class UnluckyWorker:
    """A worker process, its cache apart: that outlives it."""

    def __init__(self, engine: AsyncEngine, cache: UnluckyCache, queues: Queues) -> None:
        self.luck = Luck()
        cache.luck = self.luck
        self._inbox = Inbox()
        self._live = UnluckyChannel(queues, queues.live, self.luck)
        self._late = UnluckyChannel(queues, queues.late, self.luck)
        live: Any = self._live
        bookkeeper = UnluckyBookkeeper(UnluckyLedger(engine, self.luck), cache, self.luck)
        aside = Aside(live, METRICS, KEYS)
        self._turns = Turns(
            bookkeeper, METRICS, self._inbox, live, aside, KEYS, "worker", batch_credits_max=1_000
        )

    def take(self) -> tuple[list[Batch], list[Batch]]:
        """Receive all deliveries; return which batches the next turn takes, live ones and late ones."""
        self._live.deliver(self._inbox.live)
        self._late.deliver(self._inbox.late)
        self._inbox.late_rests_until = 0.0  # as a moment after an outage
        live = [_batch(arrival.message) for arrival in self._inbox.live]
        late = [_batch(arrival.message) for arrival in self._inbox.late]
        return [b for b in live if not is_expired(b)], late[:1]

    @property
    def has_work(self) -> bool:
        """Tell whether something that was delivered is not settled."""
        return bool(self._live.unsettled or self._late.unsettled)

    async def work(self, fault: Fault | None) -> bool:
        """Do a turn and return whether the worker lives on."""
        self.luck.begin(fault)
        try:
            await self._turns.work()
        except Died:
            self._live.return_unsettled()
            self._late.return_unsettled()
            return False
        return True


def batch_of(number: int, questions: Sequence[Question], *, expired: bool = False) -> Batch:
    """Return a batch as a gateway sends it."""
    return Batch(number, unix_ms() if expired else UNTIL_THE_END, list(questions), f"gateway-{number % 2}")


def is_expired(batch: Batch) -> bool:
    """Tell whether a batch was sent as one that nobody waits for."""
    return batch.deadline_unix_ms < UNTIL_THE_END


def gateway_of(batch: Batch) -> str:
    """Return the reply queue of the gateway that sent a batch: there are two."""
    return batch.reply_to


def _batch(message: DeliveredMessage) -> Batch:
    return read_batch(KEYS, message.body, MESSAGE_TYPE, Purpose.BATCH)
