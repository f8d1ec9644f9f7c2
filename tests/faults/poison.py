"""What somebody does who reaches Redis and knows of wins before they are posted: says that they are paid."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import msgspec
from redis.asyncio import Redis

from gateway.providers.base import Win
from simulator.history import ReplyMeaning
from tests.faults.experiment import Strike
from tests.faults.rig import PLAYERS, Rig
from tests.support.servers import Servers
from tests.support.system import SESSION
from worker.database.schema import CACHE_KEY_BYTES
from worker.ledger.cache.values import MAC_BYTES, CachedValues
from worker.ledger.epoch import Epoch
from worker.ledger.state import Transfer

INTEGRATION: Final = "klas"
KEPT_WITHIN_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Entry:
    """What Redis holds of a win that is posted."""

    epoch_name: str
    value: bytes

    @property
    def transfer(self) -> Transfer:
        """The transfer in it."""
        *_, transfer = msgspec.msgpack.decode(self.value[MAC_BYTES:])
        return msgspec.convert(transfer, Transfer)


Poison = Callable[[Entry, Win], bytes]
"""Returns what Redis is to say of a win that is not posted, from what it says of its twin that is."""


def of_its_twin(posted: Entry, _unpaid: Win) -> bytes:
    """Return the value of the win of equal content."""
    return posted.value


def forged(posted: Entry, unpaid: Win) -> bytes:
    """Return a value of the right form for the very win, by a key that is not the ledger's."""
    values = CachedValues(Epoch(posted.epoch_name, os.urandom(CACHE_KEY_BYTES)))
    return values.encode((INTEGRATION, unpaid.provider_tx_id), posted.transfer)


def patient_settings(_servers: Servers, _database_url: str) -> Mapping[str, str]:
    """Return the settings of workers that wait for Redis: on a busy machine nothing would be kept there."""
    return {"CREDITS_CACHE__TIMEOUT_SECONDS": "2"}


def poisoned(poison: Poison) -> Strike:
    """Poison the entry of one win for each player before it is sent, to workers that remember nothing."""

    async def strike(rig: Rig) -> None:
        pairs = [_twins(f"player{number:03}") for number in range(PLAYERS)]
        paid = await asyncio.gather(*(rig.senders.send_one(INTEGRATION, first) for first, _ in pairs))
        assert set(paid) == {ReplyMeaning.PAID}, paid
        async with Redis.from_url(rig.servers.cache_url) as redis:
            for first, second in pairs:
                key, entry = await _entry(redis, first.provider_tx_id)
                await redis.set(_key_of_other(key, first, second), poison(entry, second))
        for worker in rig.system.workers:
            await rig.restart(worker)
        # The repeats make the guess fail that all is new, and Redis be asked.
        sent = [rig.senders.send_one(INTEGRATION, win) for pair in pairs for win in pair]
        paid = await asyncio.gather(*sent)
        assert set(paid) == {ReplyMeaning.PAID}, paid
        await _until_logged(rig)

    return strike


async def _until_logged(rig: Rig) -> None:
    """Return when a worker has said, as it does within a second, that it has met a poisoned value."""
    async with asyncio.timeout(KEPT_WITHIN_SECONDS):
        while True:
            logs = [await asyncio.to_thread(Path.read_text, worker.log) for worker in rig.system.workers]
            if any("do not verify" in log for log in logs):
                return
            await asyncio.sleep(0.05)


def _twins(player_id: str) -> tuple[Win, Win]:
    """Return two wins of a player that differ in their ids alone."""
    first = Win(str(uuid4()), player_id, f"{SESSION}{player_id}", amount="7.77")
    return first, first._replace(provider_tx_id=str(uuid4()))


def _key_of_other(key: str, first: Win, second: Win) -> str:
    return key.replace(first.provider_tx_id, second.provider_tx_id)


async def _entry(redis: Redis, provider_tx_id: str) -> tuple[str, Entry]:
    """Return the key and the entry of a win that was paid just now, which a worker is about to keep."""
    async with asyncio.timeout(KEPT_WITHIN_SECONDS):
        while True:
            async for key in redis.scan_iter(f"credits:v2:*:{INTEGRATION}:{provider_tx_id}", count=10_000):
                if isinstance(value := await redis.get(key), bytes):
                    name = key.decode()
                    return name, Entry(name.split(":")[2], value)
            await asyncio.sleep(0.05)
