"""The dedup cache: outcomes of committed transfers, so that a repeat need not ask the database.

The latest are in this process, where most repeats find them, since a player's credits come to one worker;
all of them, for a while, are in Redis, where a worker that takes over finds them.

The cache is never asked whether something is *not* posted: a miss proves nothing. So one that is down, slow,
empty or flushed costs time and nothing else. Keys carry the ledger's epoch, a name that no other ledger
has and that is given anew when a ledger is restored: what was true of other books is not found. Redis itself
is not believed: see `worker.ledger.cache.values`.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol

import structlog
from redis.asyncio import Redis

from shared.log_limit import SummedLog
from shared.runtime import evict_oldest
from shared.settings import MEMORY, CacheSettings
from worker.ledger.cache.circuit import Call, CircuitBreaker, CountFault, is_refusal
from worker.ledger.cache.connection import CacheServer
from worker.ledger.cache.sentinels import PrimaryUnknown
from worker.ledger.cache.values import VALUE_BYTES_MAX, VALUES_BYTES_MAX, CachedValues
from worker.ledger.epoch import Epoch
from worker.ledger.state import Identity, Transfer

GATHER_SECONDS: Final = 0.05
"""How long what is put waits for what the next batches put: a message costs more than ten transfers in it."""

MEMORY_TRANSFERS_MAX: Final = 10_000
"""How many are kept in this process, some 8 MB."""

# No more of a value than one may have, and of all than an answer may have. A key of another type is an error
# in the place of its value.
_RECALL: Final = (
    "local found, room = {}, tonumber(ARGV[2]) for i, key in ipairs(KEYS) do"
    " local value = room > 0 and redis.pcall('GETRANGE', key, 0, ARGV[1]) or '' found[i] = value"
    " if type(value) == 'string' then room = room - #value end end return found"
)
# MSET knows no expiry, and a SET for each transfer costs more Python than the rest of its way through here.
_REMEMBER: Final = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"
# A Redis that is no node of a cluster takes keys of any two slots together.
_TRY: Final = "return 0"
_TRIED_KEYS: Final = ("credits:{a}", "credits:{b}")

_log = structlog.get_logger()


def uncounted(_kind: str) -> None:
    """Count nothing: where there is nobody to tell."""


class Cache(Protocol):
    """Remembers posted transfers by identity."""

    def get_local(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return what is remembered in this process."""

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:
        """Return what is remembered elsewhere; never raises."""

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Remember committed transfers, while the caller goes on; the next `get` finds them."""

    def set_epoch(self, epoch: Epoch) -> None:
        """Forget what was remembered in any other epoch of the ledger."""

    async def close(self) -> None:
        """Finish what was put, and let go of connections."""


def create_cache(settings: CacheSettings, count: CountFault = uncounted) -> Cache:
    """Return the cache that `[cache] url` names. Connects to nothing yet. Raises SettingsError."""
    return MemoryCache() if settings.url == MEMORY else RedisCache(settings, count)


class MemoryCache:
    """A cache in this process alone, bounded; the oldest are forgotten first."""

    def __init__(self) -> None:
        """Remember nothing yet, in no epoch."""
        self._epoch: Epoch | None = None
        self._transfers: Final[dict[Identity, Transfer]] = {}

    def get_local(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return what is remembered."""
        return {i: self._transfers[i] for i in identities if i in self._transfers}

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:  # noqa: ARG002
        """Return nothing: all that is remembered is here."""
        return {}

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Remember, and forget the oldest beyond the bound."""
        self._transfers.update(transfers)
        evict_oldest(self._transfers, MEMORY_TRANSFERS_MAX)

    def set_epoch(self, epoch: Epoch) -> None:
        """Forget all when the epoch is another."""
        if epoch != self._epoch:
            self._transfers.clear()
        self._epoch = epoch

    async def close(self) -> None:
        """Nothing to let go of."""


class UnverifiedLog(SummedLog[None]):
    """Logs once a second how many values did not verify."""

    def _write(self, kind: None, number: int) -> None:
        del kind  # there is only one
        _log.warning("values in the cache do not verify", values=number)


class RedisCache:
    """Memory over Redis, which has a time limit on every call and a pause after every failure.

    Whatever Redis answers, and whatever its client raises, costs a miss and no more. While it rests, a task
    of its own looks for the server to use, and tries it: no batch waits for that.
    """

    def __init__(self, settings: CacheSettings, count: CountFault = uncounted) -> None:
        """Take `[cache]` and who counts its faults. Raises SettingsError for a bad URL."""
        self._server: Final = CacheServer(settings)
        self._redis: Final = Redis.from_pool(self._server.pool)
        self._recall: Final = self._redis.register_script(_RECALL)
        self._remember: Final = self._redis.register_script(_REMEMBER)
        self._try: Final = self._redis.register_script(_TRY)
        self._memory: Final = MemoryCache()
        self._values: CachedValues | None = None
        self._epoch: Epoch | None = None
        self._count: Final = count
        self._ttl_seconds: Final = settings.ttl_seconds
        self._rest: Final = CircuitBreaker(count)
        self._unverified_log: Final = UnverifiedLog()
        self._unsent: dict[Identity, Transfer] = {}
        self._sends: asyncio.TimerHandle | None = None
        self._puts: Final[set[asyncio.Task[None]]] = set()
        self._look: asyncio.Task[None] | None = None

    def get_local(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return what this process remembers."""
        return self._memory.get_local(identities)

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:
        """Return what Redis remembers, or nothing when it doesn't answer in time."""
        await self._have_put()
        values = self._values
        if not identities or values is None or not self._is_in_use():
            return {}
        try:
            keys = [values.key(identity) for identity in identities]
            found = await self._recall(keys, [VALUE_BYTES_MAX, VALUES_BYTES_MAX])
            transfers = self._read(values, dict(zip(identities, found, strict=True)))
        except Exception as error:  # noqa: BLE001  (its client raises what it likes, a TypeError among others)
            self._begin_rest("recall", error)
            return {}
        self._rest.note_answer("recall")
        if values is not self._values:  # what was true of other books
            return {}
        self._memory.put(transfers)
        return transfers

    def _read(self, values: CachedValues, found: Mapping[Identity, Any]) -> dict[Identity, Transfer]:
        """Return the transfers whose values verify; others are misses, which the next `put` writes over."""
        there = {identity: value for identity, value in found.items() if value != b""}
        read = {identity: values.decode(identity, value) for identity, value in there.items()}
        transfers = {identity: transfer for identity, transfer in read.items() if transfer is not None}
        if unverified := len(there) - len(transfers):
            for _ in range(unverified):
                self._count("unverified")
            self._unverified_log.add(None, unverified)
        return transfers

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Remember committed transfers, soon in Redis too unless it doesn't take them in time."""
        self._memory.put(transfers)
        if transfers and self._is_in_use():
            self._unsent.update(transfers)
            if self._sends is None:
                self._sends = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._send)

    def _send(self) -> None:
        """Send what was put."""
        if self._sends is not None:
            self._sends.cancel()
            put = asyncio.create_task(self._put(self._values, self._unsent))
            self._puts.add(put)
            put.add_done_callback(self._puts.discard)
            self._unsent, self._sends = {}, None

    async def _put(self, values: CachedValues | None, transfers: Mapping[Identity, Transfer]) -> None:
        if values is None:
            return
        try:
            encoded = {values.key(one): values.encode(one, transfer) for one, transfer in transfers.items()}
            fitting = {key: value for key, value in encoded.items() if len(value) <= VALUE_BYTES_MAX}
            if fitting:
                await self._remember(list(fitting), [self._ttl_seconds, *fitting.values()])
                self._rest.note_answer("remember")
        except Exception as error:  # noqa: BLE001
            self._begin_rest("remember", error)

    def _is_in_use(self) -> bool:
        if self._rest.is_on:
            return False
        if not self._server.is_known:
            self._start_look()
        return self._server.is_known

    def _begin_rest(self, call: Call, error: Exception) -> None:
        self._rest.begin(call, error)
        self._start_look()

    def _start_look(self) -> None:
        """Have the server looked for, unless that is under way."""
        if self._look is None or self._look.done():
            self._look = asyncio.create_task(self._find_server())

    async def _find_server(self) -> None:
        try:
            await self._server.find()
            await self._try(_TRIED_KEYS)
        except Exception as error:  # noqa: BLE001
            # Whatever else passes is for the calls to find out, some of which may go well.
            if isinstance(error, PrimaryUnknown) or is_refusal(error):
                self._rest.begin("look", error)
        else:
            self._rest.note_answer("look")

    def set_epoch(self, epoch: Epoch) -> None:
        """Use the keys of this epoch only; others expire in their time, and what was not sent never is."""
        if self._epoch is None:
            self._start_look()
        self._memory.set_epoch(epoch)
        if epoch != self._epoch:
            self._epoch, self._values = epoch, CachedValues(epoch)
            self._unsent = {}

    async def close(self) -> None:
        """Finish what was put, and close the connections."""
        await self._have_put()
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])
        self._unverified_log.flush()
        try:
            await self._redis.aclose()
        except Exception as error:  # noqa: BLE001
            _log.debug("connection to the cache not closed in good order", error=type(error).__name__)

    async def _have_put(self) -> None:
        self._send()
        if self._puts:
            await asyncio.wait(self._puts)
