"""Dedup caches under test, and what they are to remember."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from shared.settings import CacheSettings
from worker.database.schema import CACHE_KEY_BYTES
from worker.ledger.cache.circuit import CountFault
from worker.ledger.cache.outcomes import Cache, RedisCache, ignore_fault
from worker.ledger.cache.values import CachedValues
from worker.ledger.epoch import Epoch
from worker.ledger.state import Identity, Transfer

KEY = bytes(range(CACHE_KEY_BYTES))
EPOCH = Epoch("an-epoch", KEY)
LATER = Epoch("an-epoch-later", KEY)


def transfer(**different: Any) -> Transfer:
    fields = {
        "id": str(uuid4()),
        "player_id": "anna",
        "currency": "EUR",
        "amount_minor": 1050,
        "kind": "win",
        "round_id": None,
        "game_id": None,
        "bet_id": None,
        "real_minor": 1050,
        "bonus_minor": 0,
        "real_balance_minor": 1050,
        "bonus_balance_minor": 0,
    }
    return Transfer(**{**fields, **different})


def key_of(identity: Identity, epoch: Epoch = EPOCH) -> str:
    """Return the key under which Redis has an identity's value."""
    return CachedValues(epoch).key(identity)


ONE: Identity = ("klas", "1")
TWO: Identity = ("klas", "2")


@asynccontextmanager
async def cache_on(
    url: str, epoch: Epoch = EPOCH, count: CountFault = ignore_fault, **different: float
) -> AsyncIterator[RedisCache]:
    settings = {"ttl_seconds": 60, "timeout_seconds": 1, **different}  # a busy machine is not a slow Redis
    cache = RedisCache(CacheSettings.model_validate({"url": url, **settings}), count)
    cache.set_epoch(epoch)
    try:
        yield cache
    finally:
        await cache.close()


async def put(cache: Cache, transfers: Mapping[Identity, Transfer]) -> None:
    """Have a cache remember transfers, and wait until it has: a `get` does."""
    cache.put(transfers)
    await cache.get([])
