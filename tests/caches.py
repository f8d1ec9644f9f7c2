"""Dedup caches under test, and what they are to remember."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from shared.settings import CacheSettings
from worker.dedup import Cache, RedisCache
from worker.posting import Identity, Transfer

EPOCH = "an-epoch"


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


ONE: Identity = ("klas", "1")
TWO: Identity = ("klas", "2")


@asynccontextmanager
async def cache_on(url: str, epoch: str = EPOCH, **different: int) -> AsyncIterator[RedisCache]:
    settings = {"ttl_seconds": 60, "timeout_ms": 1_000, **different}  # a busy machine is not a slow Redis
    cache = RedisCache(CacheSettings(url=url, **settings), epoch)
    try:
        yield cache
    finally:
        await cache.close()


async def put(cache: Cache, transfers: Mapping[Identity, Transfer]) -> None:
    """Have a cache remember transfers, and wait until it has: a `get` does."""
    cache.put(transfers)
    await cache.get([])
