"""Answers questions: from the cache what it remembers, from the ledger the rest, posting what is new."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from shared.credit import Credit
from shared.errors import LedgerUnavailable
from shared.outcome import Outcome, Result
from shared.settings import Settings
from shared.wire import Answer, Question
from worker.database import create_engine, require_migrated
from worker.dedup import Cache, create_cache
from worker.ledger import EPOCH_SECONDS_MAX, Ledger
from worker.posting import Identity, Transfer, judge

_log = structlog.get_logger()


@dataclass(slots=True)
class Bookkeeper:
    """One ledger with its cache."""

    ledger: Ledger
    cache: Cache
    epoch_known_until: float = 0.0

    async def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer a batch, in its order, credits first. Raises LedgerUnavailable: some may be posted."""
        credits_ = [q for q in questions if isinstance(q, Credit)]
        lookups = {q for q in questions if not isinstance(q, Credit)}
        outcomes = iter(await self.settle(credits_)) if credits_ else iter(())
        holders = await self.ledger.find(lookups) if lookups else {}
        return [next(outcomes) if isinstance(q, Credit) else holders.get(q) for q in questions]

    async def settle(self, credits_: Sequence[Credit]) -> list[Outcome]:
        """Answer a batch of credits, in its order. Raises LedgerUnavailable: some may be posted."""
        await self._keep_epoch()
        remembered = await self.cache.get({c.identity for c in credits_})
        replayed = {n: outcome for n, c in enumerate(credits_) if (outcome := _replay(c, remembered))}
        others = [c for n, c in enumerate(credits_) if n not in replayed]
        posted = iter(await self._post(others)) if others else iter(())
        return [replayed.get(n) or next(posted) for n in range(len(credits_))]

    async def _keep_epoch(self) -> None:
        """Ask the ledger now and then which epoch it is in. Raises LedgerUnavailable.

        A database that doesn't answer may be one that is being restored: the cache is not believed either.
        """
        if time.monotonic() >= self.epoch_known_until:
            self.cache.enter(await self.ledger.epoch())
            self.epoch_known_until = time.monotonic() + EPOCH_SECONDS_MAX

    async def _post(self, credits_: Sequence[Credit]) -> list[Outcome]:
        try:
            planned = await self.ledger.post(credits_)
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001  (whatever one credit hides, the others must be paid)
            return await self._post_apart(credits_, error)
        self.cache.put(planned.transfers)
        return planned.outcomes

    async def _post_apart(self, credits_: Sequence[Credit], error: Exception) -> list[Outcome]:
        """Post halves of a batch that can't be posted whole, down to the credit that is at fault."""
        if len(credits_) > 1:
            half = len(credits_) // 2
            return await self._post(credits_[:half]) + await self._post(credits_[half:])
        integration, provider_tx_id = credits_[0].identity
        _log.error(
            "credit can't be posted", integration=integration, provider_tx_id=provider_tx_id, exc_info=error
        )
        return [Outcome(Result.UNPOSTABLE)]


def _replay(credit: Credit, remembered: Mapping[Identity, Transfer]) -> Outcome | None:
    """Answer an identical repeat. A conflict is for the ledger to find: it is written down there."""
    transfer = remembered.get(credit.identity)
    if transfer is None:
        return None
    outcome = judge(credit, transfer)
    return outcome if outcome.result is Result.REPLAYED else None


@asynccontextmanager
async def open_bookkeeper(settings: Settings) -> AsyncIterator[Bookkeeper]:
    """Open the ledger and the cache that the settings name.

    Raises LedgerUnavailable when the database can't be reached, SettingsError when its tables are not this
    version's.
    """
    engine = create_engine(settings.ledger)
    try:
        await require_migrated(engine)
        ledger = Ledger(engine)
        cache = create_cache(settings.cache, await ledger.epoch())
        try:
            yield Bookkeeper(ledger, cache)
        finally:
            await cache.close()
    finally:
        await engine.dispose()
