"""Answers questions: from the cache what it remembers, from the ledger the rest, posting what is new."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from shared.errors import LedgerUnavailable
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from shared.settings import Settings
from shared.wire import Answer, Lookup, Question
from worker.database.engine import create_engine
from worker.database.faults import is_no_text
from worker.database.migrate import require_migrated
from worker.integrations import Assignment
from worker.ledger.cache.circuit import CountFault
from worker.ledger.cache.outcomes import Cache, create_cache, ignore_fault
from worker.ledger.planner import Identity, Plan, Transfer, replay_or_conflict
from worker.ledger.transaction import EPOCH_SECONDS_MAX, Ledger
from worker.ledger.weaknesses import ReportCount, Weaknesses, ignore_count

BACKOFF_BATCHES_MAX: Final = 64
"""How many batches go the long way before a guess that kept failing is made again."""

HALVED_CREDITS_MIN: Final = 200
"""A batch of so many is posted in two halves: of fewer, a second statement costs more than it saves."""

_log = structlog.get_logger()


@dataclass(slots=True)
class OptimisticBackoff:
    """What is tried because it usually goes well: after each failure in a row, half as often."""

    passes: int = 0
    passes_after_failure: int = 1

    def should_try(self) -> bool:
        """Tell whether to try it this time."""
        if self.passes:
            self.passes -= 1
            return False
        return True

    def record(self, *, well: bool) -> None:
        """Learn how it went."""
        self.passes = 0 if well else self.passes_after_failure
        self.passes_after_failure = 1 if well else min(2 * self.passes_after_failure, BACKOFF_BATCHES_MAX)


@dataclass(slots=True)
class LedgerService:
    """One ledger with its cache."""

    ledger: Ledger
    cache: Cache
    epoch_known_until: float = 0.0
    losses_known: int = 0
    """How many connections to the database had been lost when the epoch was last asked for."""

    backoff: OptimisticBackoff = field(default_factory=OptimisticBackoff)
    assignment: Assignment | None = None
    """Which integrations may be posted; None: any."""

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer a batch, in its order, credits first. Raises LedgerUnavailable: some may be posted."""
        credits_ = [q for q in questions if isinstance(q, Credit)]
        lookups = list({q for q in questions if not isinstance(q, Credit)})
        outcomes = iter(await self.post(credits_)) if credits_ else iter(())
        if lookups:  # by the epoch, too, it is known whether replicas must hold what is told
            await self._refresh_epoch()
        found = await self._find_own(lookups) if lookups else {}
        return [next(outcomes) if isinstance(q, Credit) else found.get(q) for q in questions]

    async def _find_own(self, lookups: Sequence[Lookup]) -> Mapping[Lookup, Answer]:
        """Look up what these books may tell: what is another cell's is to be asked again, of that cell."""
        foreign = self.assignment.foreign(lookups) if self.assignment is not None else frozenset[Lookup]()
        if not foreign:
            return await self._find(lookups)
        own = [lookup for lookup in lookups if lookup not in foreign]
        found = await self._find(own) if own else {}
        return {**found, **dict.fromkeys(foreign, Outcome(OutcomeCode.UNAVAILABLE))}

    async def _find(self, lookups: Sequence[Lookup]) -> Mapping[Lookup, Answer]:
        try:
            return await self.ledger.find(lookups)
        except LedgerUnavailable:
            self._expire_epoch()
            raise
        except Exception as error:  # noqa: BLE001  (whatever one lookup hides, the others are answered)
            return await self._bisect_lookups(lookups, error)

    async def _bisect_lookups(self, lookups: Sequence[Lookup], error: Exception) -> Mapping[Lookup, Answer]:
        """Look up halves of what can't be looked up whole, down to what is at fault.

        That belongs to nobody if no database holds such a text, and is to be asked again for any other fault.
        A session's id is not logged: who knows it can play.
        """
        if len(lookups) > 1:
            half = len(lookups) // 2
            return {**await self._find(lookups[:half]), **await self._find(lookups[half:])}
        _log.error("lookup failed", question=type(lookups[0]).__name__, exc_info=error)
        return {} if is_no_text(error) else {lookups[0]: Outcome(OutcomeCode.UNAVAILABLE)}

    async def post(self, credits_: Sequence[Credit]) -> list[Outcome]:
        """Answer a batch of credits, in its order. Raises LedgerUnavailable: some may be posted."""
        await self._refresh_epoch()
        refused = self.assignment.refusals(credits_) if self.assignment is not None else None
        if refused is not None:
            return await _complete(credits_, refused, self._post_own)
        return await self._post_own(credits_)

    async def _post_own(self, credits_: Sequence[Credit]) -> list[Outcome]:
        """Answer credits that may be posted here: from memory those that this process has posted."""
        recalled = _replays(credits_, self.cache.get_local(c.identity for c in credits_))
        return await _complete(credits_, recalled, self._post_in_halves)

    async def _post_in_halves(self, credits_: Sequence[Credit]) -> list[Outcome]:
        """Answer credits that are not recalled here.

        A large batch goes in two halves, each player in one of them: while the database works on the first,
        this process prepares the second.
        """
        halves = [[c for c in credits_ if is_odd(c) is odd] for odd in (False, True)]
        if len(credits_) < HALVED_CREDITS_MIN or not all(halves) or not self.ledger.posts_side_by_side:
            return await self._post_optimistic_then_locked(credits_)
        both = [asyncio.ensure_future(self._post_optimistic_then_locked(half)) for half in halves]
        await asyncio.gather(*both, return_exceptions=True)  # when one fails, the other is not cut off
        outcomes = [iter(settled.result()) for settled in both]
        return [next(outcomes[is_odd(credit)]) for credit in credits_]

    async def _post_optimistic_then_locked(self, credits_: Sequence[Credit]) -> list[Outcome]:
        """Answer credits that are not recalled here: probably all are new, and one statement posts them.

        Where that guess fails, Redis tells what it remembers, and the ledger looks, under locks, at the rest.
        """
        if self.backoff.should_try():
            posted = await self._post_optimistic(credits_)
            self.backoff.record(well=posted is not None)
            if posted is not None:
                return posted
        found = _replays(credits_, await self.cache.get({c.identity for c in credits_}))
        return await _complete(credits_, found, self._post)

    async def _refresh_epoch(self) -> None:
        """Ask the ledger now and then for its epoch and the key of cached values. Raises LedgerUnavailable.

        A database that doesn't answer may be one that is being restored: the cache is not believed either.
        One that ends a connection may be replaced at once: it is asked before anything is recalled.
        """
        losses = self.ledger.connections_lost
        if time.monotonic() >= self.epoch_known_until or losses != self.losses_known:
            self.cache.set_epoch(await self.ledger.keyed_epoch())
            if self.assignment is not None:
                await self.assignment.refresh()
            self.epoch_known_until, self.losses_known = time.monotonic() + EPOCH_SECONDS_MAX, losses

    def _expire_epoch(self) -> None:
        """Have the next batch ask for the epoch: who gives no answer may be replaced before the next."""
        self.epoch_known_until = 0.0

    def _remember(self, planned: Plan) -> None:
        """Have the cache remember what the books of its epoch have: of others it must tell nobody."""
        if self.ledger.is_of_epoch(planned):
            self.cache.put(planned.transfers)

    async def _post_optimistic(self, credits_: Sequence[Credit]) -> list[Outcome] | None:
        try:
            planned = await self.ledger.post_new(credits_)
        except LedgerUnavailable:
            self._expire_epoch()
            raise
        except Exception:  # noqa: BLE001  (posting them under locks will tell)
            return None
        if planned is None:
            return None
        self._remember(planned)
        return planned.outcomes

    async def _post(self, credits_: Sequence[Credit]) -> list[Outcome]:
        try:
            planned = await self.ledger.post(credits_)
        except LedgerUnavailable:
            self._expire_epoch()
            raise
        except Exception as error:  # noqa: BLE001  (whatever one credit hides, the others must be paid)
            return await self._bisect_credits(credits_, error)
        self._remember(planned)
        return planned.outcomes

    async def _bisect_credits(self, credits_: Sequence[Credit], error: Exception) -> list[Outcome]:
        """Post halves of a batch that can't be posted whole, down to the credit that is at fault."""
        if len(credits_) > 1:
            half = len(credits_) // 2
            return await self._post(credits_[:half]) + await self._post(credits_[half:])
        integration, provider_tx_id = credits_[0].identity
        _log.error("credit can't be posted", integration=integration, provider_tx_id=provider_tx_id, exc_info=error)
        return [Outcome(OutcomeCode.UNPOSTABLE)]


def is_odd(credit: Credit) -> bool:
    """Tell in which half of a large batch a credit is: with all others of its player."""
    return hash(credit.player_id) % 2 == 1


async def _complete(
    credits_: Sequence[Credit],
    outcomes: Sequence[Outcome | None],
    settle: Callable[[Sequence[Credit]], Awaitable[list[Outcome]]],
) -> list[Outcome]:
    """Have those credits settled that have no outcome yet; return the outcomes of all."""
    others = [credit for credit, outcome in zip(credits_, outcomes, strict=True) if outcome is None]
    settled = iter(await settle(others)) if others else iter(())
    return [outcome or next(settled) for outcome in outcomes]


def _replays(credits_: Sequence[Credit], remembered: Mapping[Identity, Transfer]) -> list[Outcome | None]:
    """Answer identical repeats. A conflict is for the ledger to find: it is written down there."""
    judged = (replay_or_conflict(c, transfer) if (transfer := remembered.get(c.identity)) else None for c in credits_)
    return [outcome if outcome and outcome.code is OutcomeCode.REPLAYED else None for outcome in judged]


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
