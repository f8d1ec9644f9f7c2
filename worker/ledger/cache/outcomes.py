"""The outcome cache holds committed transfers, so that a repeated credit needs no query of the database.

The latest are in the memory of this process, which serves most repeats, because a player's credits come to one
worker. All of them are in Redis for a while, for a worker that takes over.

A miss never proves that a credit is *not* posted. So a cache that is down, slow, empty or flushed costs only
time. Keys contain the ledger's epoch, a name that no other ledger has and that is replaced when a ledger is
restored, so outcomes of another ledger are never found. Redis itself is not trusted: see
`worker.ledger.cache.values`.
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

WRITE_DELAY_SECONDS: Final = 0.05
"""How long transfers wait for those of the next batches: a message to Redis costs more than ten transfers in it."""

MEMORY_TRANSFERS_MAX: Final = 10_000
"""The most transfers in the memory of this process, which take some 8 MB."""

# Limits the bytes of each value, and of all values together. A key of another type gives an error in the place of
# its value.
_READ_SCRIPT: Final = (
    "local found, room = {}, tonumber(ARGV[2]) for i, key in ipairs(KEYS) do"
    " local value = room > 0 and redis.pcall('GETRANGE', key, 0, ARGV[1]) or '' found[i] = value"
    " if type(value) == 'string' then room = room - #value end end return found"
)
# A script, because MSET has no expiry, and a SET command for each transfer costs more time in Python than the rest
# of this module's work on it.
_WRITE_SCRIPT: Final = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"
# These two keys are in different slots, which only a node of a cluster refuses to use in one script.
_PROBE_SCRIPT: Final = "return 0"
_PROBE_KEYS: Final = ("credits:{a}", "credits:{b}")

_log = structlog.get_logger()


def ignore_fault(_kind: str) -> None:
    """Do nothing: the default of callers that have no metrics."""


class Cache(Protocol):
    """Holds committed transfers by the identity of their credit."""

    def get_local(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return the transfers that are in the memory of this process."""

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:
        """Return the transfers that are in the shared cache. Never raises."""

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Store committed transfers, without waiting for it; the next `get` finds them."""

    def set_epoch(self, epoch: Epoch) -> None:
        """Use the transfers of this epoch of the ledger only, and drop those of any other."""

    async def close(self) -> None:
        """Finish the writes, and close the connections."""


def create_cache(settings: CacheSettings, count: CountFault = ignore_fault) -> Cache:
    """Return the cache that `[cache] url` names. Connects to nothing yet. Raises SettingsError."""
    return MemoryCache() if settings.url == MEMORY else RedisCache(settings, count)


class MemoryCache:
    """A cache in the memory of this process, of bounded size; the oldest transfers are evicted first."""

    def __init__(self) -> None:
        """Start empty, and without an epoch."""
        self._epoch: Epoch | None = None
        self._transfers: Final[dict[Identity, Transfer]] = {}

    def get_local(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return the stored transfers."""
        return {i: self._transfers[i] for i in identities if i in self._transfers}

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:  # noqa: ARG002
        """Return nothing, because there is no shared cache."""
        return {}

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Store transfers, and evict the oldest beyond the bound."""
        self._transfers.update(transfers)
        evict_oldest(self._transfers, MEMORY_TRANSFERS_MAX)

    def set_epoch(self, epoch: Epoch) -> None:
        """Drop all transfers if the epoch has changed."""
        if epoch != self._epoch:
            self._transfers.clear()
        self._epoch = epoch

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""


class UnverifiedLog(SummedLog[None]):
    """Logs once a second how many values did not verify."""

    def _write(self, kind: None, number: int) -> None:
        del kind  # there is only one
        _log.warning("values in the cache do not verify", values=number)


class RedisCache:
    """A memory cache in front of Redis, with a time limit on every call and a pause after every failure.

    Whatever Redis answers, and whatever its client raises, costs no more than a miss. After a failure a
    background task finds the server to use and probes it: no batch waits for that.
    """

    def __init__(self, settings: CacheSettings, count: CountFault = ignore_fault) -> None:
        """Take `[cache]` and the function that counts faults. Raises SettingsError for a bad URL."""
        self._server: Final = CacheServer(settings)
        self._redis: Final = Redis.from_pool(self._server.pool)
        self._read_script: Final = self._redis.register_script(_READ_SCRIPT)
        self._write_script: Final = self._redis.register_script(_WRITE_SCRIPT)
        self._probe_script: Final = self._redis.register_script(_PROBE_SCRIPT)
        self._memory: Final = MemoryCache()
        self._values: CachedValues | None = None
        self._epoch: Epoch | None = None
        self._count: Final = count
        self._ttl_seconds: Final = settings.ttl_seconds
        self._circuit: Final = CircuitBreaker(count)
        self._unverified_log: Final = UnverifiedLog()
        self._unwritten: dict[Identity, Transfer] = {}
        self._write_timer: asyncio.TimerHandle | None = None
        self._writes: Final[set[asyncio.Task[None]]] = set()
        self._server_search: asyncio.Task[None] | None = None

    def get_local(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return the transfers that are in the memory of this process."""
        return self._memory.get_local(identities)

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:
        """Return the transfers that are in Redis; none if it doesn't answer in time."""
        await self._finish_writes()
        values = self._values
        if not identities or values is None or not self._is_available():
            return {}
        try:
            keys = [values.key(identity) for identity in identities]
            found = await self._read_script(keys, [VALUE_BYTES_MAX, VALUES_BYTES_MAX])
            transfers = self._decode(values, dict(zip(identities, found, strict=True)))
        except Exception as error:  # noqa: BLE001  (redis-py raises exceptions of any class, such as TypeError)
            self._open_circuit("read", error)
            return {}
        self._circuit.record_success("read")
        if values is not self._values:  # the epoch has changed meanwhile
            return {}
        self._memory.put(transfers)
        return transfers

    def _decode(self, values: CachedValues, found: Mapping[Identity, Any]) -> dict[Identity, Transfer]:
        """Return the transfers whose values verify; the others are misses, which the next `put` overwrites."""
        present = {identity: value for identity, value in found.items() if value != b""}
        decoded = {identity: values.decode(identity, value) for identity, value in present.items()}
        transfers = {identity: transfer for identity, transfer in decoded.items() if transfer is not None}
        if unverified := len(present) - len(transfers):
            for _ in range(unverified):
                self._count("unverified")
            self._unverified_log.add(None, unverified)
        return transfers

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Store committed transfers in memory now, and in Redis soon, if it accepts them in time."""
        self._memory.put(transfers)
        if transfers and self._is_available():
            self._unwritten.update(transfers)
            if self._write_timer is None:
                self._write_timer = asyncio.get_running_loop().call_later(WRITE_DELAY_SECONDS, self._start_write)

    def _start_write(self) -> None:
        """Start writing the transfers that wait for it, if there are any."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            write = asyncio.create_task(self._write(self._values, self._unwritten))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
            self._unwritten, self._write_timer = {}, None

    async def _write(self, values: CachedValues | None, transfers: Mapping[Identity, Transfer]) -> None:
        if values is None:
            return
        try:
            encoded = {values.key(one): values.encode(one, transfer) for one, transfer in transfers.items()}
            fitting = {key: value for key, value in encoded.items() if len(value) <= VALUE_BYTES_MAX}
            if fitting:
                await self._write_script(list(fitting), [self._ttl_seconds, *fitting.values()])
                self._circuit.record_success("write")
        except Exception as error:  # noqa: BLE001
            self._open_circuit("write", error)

    def _is_available(self) -> bool:
        """Return whether Redis may be called now, and search for the server if it is not known."""
        if self._circuit.is_open:
            return False
        if not self._server.is_known:
            self._start_server_search()
        return self._server.is_known

    def _open_circuit(self, call: Call, error: Exception) -> None:
        self._circuit.record_failure(call, error)
        self._start_server_search()

    def _start_server_search(self) -> None:
        """Start a search for the server, unless one is in progress."""
        if self._server_search is None or self._server_search.done():
            self._server_search = asyncio.create_task(self._find_server())

    async def _find_server(self) -> None:
        try:
            await self._server.find()
            await self._probe_script(_PROBE_KEYS)
        except Exception as error:  # noqa: BLE001
            # Transient errors are left to the calls themselves, some of which may succeed.
            if isinstance(error, PrimaryUnknown) or is_refusal(error):
                self._circuit.record_failure("probe", error)
        else:
            self._circuit.record_success("probe")

    def set_epoch(self, epoch: Epoch) -> None:
        """Use the keys of this epoch only. Those of others expire, and their unwritten transfers are dropped."""
        if self._epoch is None:
            self._start_server_search()
        self._memory.set_epoch(epoch)
        if epoch != self._epoch:
            self._epoch, self._values = epoch, CachedValues(epoch)
            self._unwritten = {}

    async def close(self) -> None:
        """Finish the writes, and close the connections."""
        await self._finish_writes()
        if self._server_search is not None:
            self._server_search.cancel()
            await asyncio.wait([self._server_search])
        self._unverified_log.flush()
        try:
            await self._redis.aclose()
        except Exception as error:  # noqa: BLE001
            _log.debug("connection to the cache not closed in good order", error=type(error).__name__)

    async def _finish_writes(self) -> None:
        self._start_write()
        if self._writes:
            await asyncio.wait(self._writes)
