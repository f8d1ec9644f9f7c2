"""The ledger service: replies to operations and queries from the cache or the ledger, and posts what is new."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.errors import LedgerUnavailable
from shared.operations import AnyOperation
from shared.outcome import Outcome, OutcomeCode
from shared.queries import Query, QueryReply
from shared.settings import Settings
from worker.database.engine import create_engine
from worker.database.faults import is_no_text
from worker.database.migrate import require_migrated
from worker.integrations import Assignment
from worker.ledger.cache.circuit import CountFault
from worker.ledger.cache.outcomes import Cache, create_cache, ignore_fault
from worker.ledger.planner import Plan
from worker.ledger.rules import Replay, replay_or_conflict
from worker.ledger.state import Identity, Transfer
from worker.ledger.transaction import EPOCH_SECONDS_MAX, Ledger
from worker.ledger.weaknesses import ReportCount, Weaknesses, ignore_count

BACKOFF_BATCHES_MAX: Final = 64
"""The most batches that are posted under locks before the optimistic statement is tried again."""

HALVED_OPERATIONS_MIN: Final = 200
"""The size from which a batch is posted in two halves. Of a smaller one a second statement costs more than it saves."""

_log = structlog.get_logger()


@dataclass(slots=True)
class OptimisticBackoff:
    """Decides whether to try the optimistic statement: after each failure in a row, half as often."""

    skips: int = 0
    skips_after_failure: int = 1

    def should_try(self) -> bool:
        """Return whether to try the optimistic statement for the next batch; counts down the batches to skip."""
        if self.skips:
            self.skips -= 1
            return False
        return True

    def record(self, *, success: bool) -> None:
        """Take the result of a try."""
        self.skips = 0 if success else self.skips_after_failure
        self.skips_after_failure = 1 if success else min(2 * self.skips_after_failure, BACKOFF_BATCHES_MAX)


@dataclass(slots=True)
class LedgerService:
    """One ledger with its cache."""

    ledger: Ledger
    cache: Cache
    epoch_known_until: float = 0.0
    losses_known: int = 0
    """The ledger's count of lost connections when its epoch was last read."""

    backoff: OptimisticBackoff = field(default_factory=OptimisticBackoff)
    assignment: Assignment | None = None
    """The integrations that may be posted here; None: any."""

    async def answer(
        self, operations: Sequence[AnyOperation], queries: Sequence[Query]
    ) -> tuple[list[Outcome], list[QueryReply]]:
        """Post operations, then reply to queries; return the outcomes and the replies, each in their order.

        Raises LedgerUnavailable: some of the operations may be posted.
        """
        outcomes = await self.post(operations) if operations else []
        if not queries:
            return outcomes, []
        await self._refresh_epoch()  # which also reads whether replicas must confirm what is replied
        found = await self._find_own(list(set(queries)))
        return outcomes, [found.get(query) for query in queries]

    async def _find_own(self, queries: Sequence[Query]) -> Mapping[Query, QueryReply]:
        """Reply to the queries of this cell. Those of another cell are to be sent again, to that cell."""
        foreign = self.assignment.foreign(queries) if self.assignment is not None else frozenset[Query]()
        if not foreign:
            return await self._find(queries)
        own = [query for query in queries if query not in foreign]
        found = await self._find(own) if own else {}
        return {**found, **dict.fromkeys(foreign, Outcome(OutcomeCode.UNAVAILABLE))}

    async def _find(self, queries: Sequence[Query]) -> Mapping[Query, QueryReply]:
        try:
            return await self.ledger.find(queries)
        except LedgerUnavailable:
            self._expire_epoch()
            raise
        except Exception as error:  # noqa: BLE001  (a query that fails must not fail the others)
            return await self._bisect_queries(queries, error)

    async def _bisect_queries(self, queries: Sequence[Query], error: Exception) -> Mapping[Query, QueryReply]:
        """Retry a batch that failed in halves, down to the query that is at fault.

        Its id belongs to nobody if no database can hold such a text; after any other fault the reply is
        UNAVAILABLE. The query is not logged: a session's id lets its owner play.
        """
        if len(queries) > 1:
            half = len(queries) // 2
            return {**await self._find(queries[:half]), **await self._find(queries[half:])}
        _log.error("lookup failed", question=type(queries[0]).__name__, exc_info=error)
        return {} if is_no_text(error) else {queries[0]: Outcome(OutcomeCode.UNAVAILABLE)}

    async def post(self, operations: Sequence[AnyOperation]) -> list[Outcome]:
        """Return the outcomes of a batch, in its order. Raises LedgerUnavailable: some may be posted."""
        await self._refresh_epoch()
        refused = self.assignment.refusals(operations) if self.assignment is not None else None
        if refused is not None:
            return await _complete(operations, refused, self._post_own)
        return await self._post_own(operations)

    async def _post_own(self, operations: Sequence[AnyOperation]) -> list[Outcome]:
        """Post operations of this cell. Replays that this process remembers are replied from its memory."""
        replays = _replays(operations, self.cache.get_local(operation.identity for operation in operations))
        return await _complete(operations, replays, self._post_in_halves)

    async def _post_in_halves(self, operations: Sequence[AnyOperation]) -> list[Outcome]:
        """Post a large batch in two halves, all operations of a player in one of them.

        While the database works on the first half, this process prepares the second.
        """
        halves = [[o for o in operations if half_of(o) == half] for half in (0, 1)]
        if len(operations) < HALVED_OPERATIONS_MIN or not all(halves) or not self.ledger.posts_side_by_side:
            return await self._post_optimistic_then_locked(operations)
        both = [asyncio.ensure_future(self._post_optimistic_then_locked(half)) for half in halves]
        await asyncio.gather(*both, return_exceptions=True)  # the failure of one must not cancel the other
        outcomes = [iter(posted.result()) for posted in both]
        return [next(outcomes[half_of(operation)]) for operation in operations]

    async def _post_optimistic_then_locked(self, operations: Sequence[AnyOperation]) -> list[Outcome]:
        """Post operations that this process does not remember: probably all are new, and one statement does it.

        Otherwise the replays that Redis remembers are replied, and the rest is posted under locks.
        """
        if self.backoff.should_try():
            posted = await self._post_optimistic(operations)
            self.backoff.record(success=posted is not None)
            if posted is not None:
                return posted
        replays = _replays(operations, await self.cache.get({operation.identity for operation in operations}))
        return await _complete(operations, replays, self._post_locked)

    async def _post_optimistic(self, operations: Sequence[AnyOperation]) -> list[Outcome] | None:
        try:
            planned = await self.ledger.post_new(operations)
        except LedgerUnavailable:
            self._expire_epoch()
            raise
        except Exception:  # noqa: BLE001  (posting under locks finds the operation at fault)
            return None
        if planned is None:
            return None
        self._remember(planned)
        return planned.outcomes

    async def _post_locked(self, operations: Sequence[AnyOperation]) -> list[Outcome]:
        try:
            planned = await self.ledger.post(operations)
        except LedgerUnavailable:
            self._expire_epoch()
            raise
        except Exception as error:  # noqa: BLE001  (an operation that fails must not fail the others)
            return await self._bisect_operations(operations, error)
        self._remember(planned)
        return planned.outcomes

    async def _bisect_operations(self, operations: Sequence[AnyOperation], error: Exception) -> list[Outcome]:
        """Post a batch that failed in halves, down to the operation that is at fault."""
        if len(operations) > 1:
            half = len(operations) // 2
            return await self._post_locked(operations[:half]) + await self._post_locked(operations[half:])
        integration, provider_tx_id = operations[0].identity
        _log.error("credit can't be posted", integration=integration, provider_tx_id=provider_tx_id, exc_info=error)
        return [Outcome(OutcomeCode.UNPOSTABLE)]

    def _remember(self, planned: Plan) -> None:
        """Cache a plan's transfers, unless it was carried out on another copy of the books than the cache is of."""
        if self.ledger.is_of_epoch(planned):
            self.cache.put(planned.cacheable)

    async def _refresh_epoch(self) -> None:
        """Read the ledger's epoch, with the key of cached values, if it may have changed. Raises LedgerUnavailable.

        A database that gives no answer may be one that is being restored, so the cache is not believed either.
        One that has ended a connection may have been replaced, so its epoch is read before the cache is.
        """
        losses = self.ledger.connections_lost
        if time.monotonic() >= self.epoch_known_until or losses != self.losses_known:
            self.cache.set_epoch(await self.ledger.keyed_epoch())
            if self.assignment is not None:
                await self.assignment.refresh()
            self.epoch_known_until, self.losses_known = time.monotonic() + EPOCH_SECONDS_MAX, losses

    def _expire_epoch(self) -> None:
        """Have the next batch read the epoch: a database that gave no answer may be replaced before then."""
        self.epoch_known_until = 0.0


def half_of(operation: AnyOperation) -> int:
    """Return the half of a large batch, 0 or 1, that all operations of a player are in."""
    return hash(operation.player_id) % 2


async def _complete(
    operations: Sequence[AnyOperation],
    outcomes: Sequence[Outcome | None],
    post: Callable[[Sequence[AnyOperation]], Awaitable[list[Outcome]]],
) -> list[Outcome]:
    """Post the operations that have no outcome yet; return the outcomes of all."""
    others = [operation for operation, outcome in zip(operations, outcomes, strict=True) if outcome is None]
    posted = iter(await post(others)) if others else iter(())
    return [outcome or next(posted) for outcome in outcomes]


def _replays(operations: Sequence[AnyOperation], remembered: Mapping[Identity, Transfer]) -> list[Outcome | None]:
    """Return the outcomes of replays. A conflict is left to the ledger, which records it."""
    return [_replay(operation, remembered.get(operation.identity)) for operation in operations]


def _replay(operation: AnyOperation, transfer: Transfer | None) -> Outcome | None:
    if transfer is None or not isinstance(replay_or_conflict(operation, transfer), Replay):
        return None
    return Outcome(OutcomeCode.REPLAYED, transfer.receipt)


@asynccontextmanager
async def open_ledger_service(
    settings: Settings, count_cache_fault: CountFault = ignore_fault, tell_weaknesses: ReportCount = ignore_count
) -> AsyncIterator[LedgerService]:
    """Open the ledger and the cache that the settings name.

    Raises LedgerUnavailable when the database can't be reached, SettingsError when its tables are not this
    version's or a URL is wrong.
    """
    cache = create_cache(settings.cache, count_cache_fault)
    engine = create_engine(settings.ledger)
    try:
        ledger, assignment = Ledger(engine), Assignment(engine, settings.broker.cell)  # before any connection
        await require_migrated(engine)
        await assignment.require()
        cache.set_epoch(await ledger.keyed_epoch())
        weaknesses = Weaknesses(ledger, tell_weaknesses)
        await weaknesses.check()
        try:
            async with weaknesses.watched():
                yield LedgerService(ledger, cache, assignment=assignment)
        finally:
            assignment.flush_log()
            await cache.close()
    finally:
        await engine.dispose()
