"""The dedup cache: outcomes of committed transfers, so that a repeat need not ask the database.

The latest are in this process, where most repeats find them, since a player's credits come to one worker;
all of them, for a while, are in Redis, where a worker that takes over finds them.

The cache is never asked whether something is *not* posted: a miss proves nothing. So one that is down, slow,
empty or flushed costs time and nothing else. Keys carry the ledger's epoch, a name that no other ledger
has and that is given anew when a ledger is restored: what was true of other books is not found.
"""

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final, Protocol

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from shared.errors import SettingsError
from shared.garbage import forget_oldest
from shared.settings import MEMORY, CacheSettings
from worker.posting import Identity, Transfer

PAUSE_SECONDS: Final = 1.0
"""How long a cache that failed is left alone: a slow cache must not slow every batch."""

GATHER_SECONDS: Final = 0.05
"""How long what is put waits for what the next batches put: a message costs more than ten transfers in it."""

MEMORY_TRANSFERS_MAX: Final = 10_000
"""How many are kept in this process, some 8 MB."""

# MSET knows no expiry, and a SET for each transfer costs more Python than the rest of its way through here.
_REMEMBER: Final = "for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1]) end"

_FAULTS: Final = (RedisError, OSError, TimeoutError)
_log = structlog.get_logger()
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Transfer)


class Cache(Protocol):
    """Remembers posted transfers by identity."""

    def recall(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return what is remembered in this process."""

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:
        """Return what is remembered elsewhere; never raises."""

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Remember committed transfers, while the caller goes on; the next `get` finds them."""

    def enter(self, epoch: str) -> None:
        """Forget what was remembered in any other epoch of the ledger."""

    async def close(self) -> None:
        """Finish what was put, and let go of connections."""


def create_cache(settings: CacheSettings, epoch: str) -> Cache:
    """Return the cache that `[cache] url` names. Connects to nothing yet. Raises SettingsError."""
    if settings.url == MEMORY:
        return MemoryCache(epoch)
    return RedisCache(settings, epoch)


class MemoryCache:
    """A cache in this process alone, bounded; the oldest are forgotten first."""

    def __init__(self, epoch: str = "") -> None:
        """Take the ledger's epoch."""
        self._epoch = epoch
        self._transfers: Final[dict[Identity, Transfer]] = {}

    def recall(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return what is remembered."""
        return {i: self._transfers[i] for i in identities if i in self._transfers}

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:  # noqa: ARG002
        """Return nothing: all that is remembered is here."""
        return {}

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Remember, and forget the oldest beyond the bound."""
        self._transfers.update(transfers)
        forget_oldest(self._transfers, MEMORY_TRANSFERS_MAX)

    def enter(self, epoch: str) -> None:
        """Forget all when the epoch is another."""
        if epoch != self._epoch:
            self._transfers.clear()
        self._epoch = epoch

    async def close(self) -> None:
        """Nothing to let go of."""


class RedisCache:
    """Memory over Redis, which has a time limit on every call and a pause after every failure."""

    def __init__(self, settings: CacheSettings, epoch: str) -> None:
        """Take `[cache]` and the ledger's epoch. Raises SettingsError for a bad URL."""
        timeout_seconds = settings.timeout_ms / 1_000
        try:
            self._redis: Final = Redis.from_url(
                settings.url,
                socket_timeout=timeout_seconds,
                socket_connect_timeout=timeout_seconds,
                retry=Retry(NoBackoff(), 0),  # redis-py's default of ten retries would outlast the window
            )
        except ValueError as error:
            raise SettingsError(f"[cache] url: {error}") from None
        self._remember: Final = self._redis.register_script(_REMEMBER)
        self._memory: Final = MemoryCache(epoch)
        self._prefix = f"credits:{epoch}:"
        self._ttl_seconds: Final = settings.ttl_seconds
        self._rest_until = 0.0
        self._unsent: dict[str, Transfer] = {}
        self._sends: asyncio.TimerHandle | None = None
        self._puts: Final[set[asyncio.Task[None]]] = set()

    def recall(self, identities: Iterable[Identity]) -> Mapping[Identity, Transfer]:
        """Return what this process remembers."""
        return self._memory.recall(identities)

    async def get(self, identities: Collection[Identity]) -> Mapping[Identity, Transfer]:
        """Return what Redis remembers, or nothing when it doesn't answer in time."""
        await self._have_put()
        if not identities or time.monotonic() < self._rest_until:
            return {}
        try:
            found = await self._redis.mget([self._key(identity) for identity in identities])
        except _FAULTS as error:
            self._rest(error)
            return {}
        read = ((i, _read(value)) for i, value in zip(identities, found, strict=True))
        transfers = {identity: transfer for identity, transfer in read if transfer is not None}
        self._memory.put(transfers)
        return transfers

    def put(self, transfers: Mapping[Identity, Transfer]) -> None:
        """Remember committed transfers, soon in Redis too unless it doesn't take them in time."""
        self._memory.put(transfers)
        if transfers and time.monotonic() >= self._rest_until:
            self._unsent.update((self._key(identity), transfer) for identity, transfer in transfers.items())
            if self._sends is None:
                self._sends = asyncio.get_running_loop().call_later(GATHER_SECONDS, self._send)

    def _send(self) -> None:
        """Send what was put, which is known by its keys: in another epoch they would be others."""
        if self._sends is not None:
            self._sends.cancel()
            put = asyncio.create_task(self._put(self._unsent))
            self._puts.add(put)
            put.add_done_callback(self._puts.discard)
            self._unsent, self._sends = {}, None

    async def _put(self, transfers: Mapping[str, Transfer]) -> None:
        try:
            values = [_encoder.encode(transfer) for transfer in transfers.values()]
            await self._remember(list(transfers), [self._ttl_seconds, *values])
        except _FAULTS as error:
            self._rest(error)

    def enter(self, epoch: str) -> None:
        """Use the keys of this epoch only; others expire in their time."""
        self._memory.enter(epoch)
        self._prefix = f"credits:{epoch}:"

    async def close(self) -> None:
        """Finish what was put, and close the connections."""
        await self._have_put()
        await self._redis.aclose()

    async def _have_put(self) -> None:
        self._send()
        if self._puts:
            await asyncio.wait(self._puts)

    def _key(self, identity: Identity) -> str:
        return self._prefix + ":".join(identity)  # an integration's name has no colon

    def _rest(self, error: Exception) -> None:
        self._rest_until = time.monotonic() + PAUSE_SECONDS
        _log.warning("cache rests", seconds=PAUSE_SECONDS, error=type(error).__name__)


def _read(value: object) -> Transfer | None:
    """Return what `put` wrote; garbage is a miss, and the next `put` writes over it."""
    if not isinstance(value, bytes):
        return None
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("garbage in the cache", error=type(error).__name__)
        return None
