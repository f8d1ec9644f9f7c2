"""The connections to Redis: what its driver can't use stops the start, and no message holds a secret.

redis-py takes any option in a URL, time limits among them, and finds out when it connects that it knows no
such option. Here our own options count, and a connection is built, and its certificates are read, before the
first is needed.
"""

import ssl
from contextlib import suppress
from functools import partial
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterCrossSlotError, ClusterDownError, RedisError, TryAgainError

from shared.errors import SettingsError
from shared.sentinel_url import SentinelUrl, is_sentinel_url, read
from shared.settings import CacheSettings
from worker.ledger.cache.answers import AnswerParser
from worker.ledger.cache.lookups import (
    LookedUpConnection,
    LookedUpManagedConnection,
    LookedUpManagedSSLConnection,
    LookedUpSSLConnection,
    Lookups,
)
from worker.ledger.cache.sentinels import Sentinels
from worker.ledger.cache.values import VALUES_BYTES_MAX

REASON_CHARACTERS_MAX: Final = 200

ANSWER_BYTES_MAX: Final = VALUES_BYTES_MAX + 1_048_576
"""Of Redis: the values of a batch, and room for what is around them and for errors in their places."""

SENTINEL_BYTES_MAX: Final = 16_384
"""Of a sentinel, whose longest answer has some 1 KB."""

LOOKUPS_MAX: Final = 4
"""Names of Redis that are looked up at a time: sentinels may name another while one's lookup hangs."""


class CacheServer:
    """The Redis that is used, which may be another after a failover, and the connections to it."""

    def __init__(self, settings: CacheSettings) -> None:
        """Take `[cache]`. Connects to nothing yet. Raises SettingsError."""
        self.pool: Final = connection_pool(settings)
        self._sentinels: Final = self.pool.sentinel_manager if isinstance(self.pool, SentinelConnectionPool) else None

    @property
    def is_known(self) -> bool:
        """Whether there is a Redis to ask: not before a sentinel has named one."""
        return self._sentinels is None or self._sentinels.primary is not None

    async def find(self) -> None:
        """Find out what to connect to from now on. Raises PrimaryUnknown where no sentinel says it.

        Connections that nobody uses are closed: the server of before may be silent, or a replica by now, also
        where a name or a proxy leads to the primary.
        """
        if self._sentinels is not None:
            await self._sentinels.look()
        await self._close_idle()

    async def _close_idle(self) -> None:
        """Close idle connections; taken from the pool first, they are given to nobody meanwhile."""
        (idle, _), *_ = self.pool.get_connection_count()
        take = self.pool.get_available_connection
        for connection in [take() for _ in range(idle)]:  # type: ignore[no-untyped-call]
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            await self.pool.release(connection)


def connection_pool(settings: CacheSettings) -> ConnectionPool:
    """Return the pool for `[cache]`. Connects to nothing yet. Raises SettingsError, without the password."""
    try:
        pool = _make_pool(settings)
        connection = pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
    except ssl.SSLError as error:
        reason = getattr(error, "reason", None) or error.args[0]
        raise SettingsError(f"[cache] url: its certificates, key or ciphers are of no use: {reason}") from None
    except OSError as error:
        raise SettingsError(f"[cache] url: its certificates or key: {error.strerror}") from None
    except (TypeError, ValueError, RedisError):  # whose words may repeat a part of the password
        raise SettingsError(
            "[cache] url: must be memory:// or redis://, rediss://, redis+sentinel://, rediss+sentinel:// or"
            " unix://, its port a number and its options those of redis-py; in a password write %2F for /,"
            " %3F for ?, %23 for #"
        ) from None
    return pool


def _make_pool(settings: CacheSettings) -> ConnectionPool:
    if is_sentinel_url(settings.url):
        return _make_sentinel_pool(read(settings.url), settings)
    given: dict[str, Any] = dict(parse_url(settings.url))
    if given.get("connection_class") is not UnixDomainSocketConnection:
        is_tls = "connection_class" in given
        given["connection_class"] = LookedUpSSLConnection if is_tls else LookedUpConnection
        given["lookups"] = Lookups(LOOKUPS_MAX)
    return ConnectionPool(**(given | _options(settings)))


def _make_sentinel_pool(place: SentinelUrl, settings: CacheSettings) -> SentinelConnectionPool:
    """Return a pool whose connections lead to the primary. The options of TLS are for the sentinels too."""
    given: dict[str, Any] = dict(parse_url(place.redis_url))
    of_tls = {name: value for name, value in given.items() if name.startswith("ssl_")}
    is_tls = given.pop("connection_class", None) is not None
    of_sentinels = {
        "connection_class": LookedUpSSLConnection if is_tls else LookedUpConnection,
        "lookups": Lookups(len(place.sentinels)),
        "parser_class": partial(AnswerParser, bytes_max=SENTINEL_BYTES_MAX),
    }
    sentinels = Sentinels(place, _options(settings) | of_tls | of_sentinels)
    of_primary = {
        "connection_class": LookedUpManagedSSLConnection if is_tls else LookedUpManagedConnection,
        "lookups": Lookups(LOOKUPS_MAX),
    }
    options = given | _options(settings) | of_primary
    return SentinelConnectionPool(place.primary_name, sentinels, **options)  # type: ignore[no-untyped-call]


def _options(settings: CacheSettings) -> dict[str, Any]:
    timeout_seconds = settings.timeout_ms / 1_000
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),  # redis-py's default of ten retries would outlast the window
        "decode_responses": False,
        "parser_class": partial(AnswerParser, bytes_max=ANSWER_BYTES_MAX),
        # With the third, a server may send what nobody asked for: such as where to connect next.
        "protocol": 2,
        "driver_info": None,  # so that the account need not be allowed to tell which library we use
    }


def is_of_cluster(error: BaseException) -> bool:
    """Tell whether only a node of a Redis Cluster says this."""
    return isinstance(error, (AskError, ClusterCrossSlotError, TryAgainError)) or type(error) is ClusterDownError


def reason_of(error: Exception) -> str:
    """Return why Redis failed us, as far as that may be logged.

    Redis may quote a command that it doesn't know with its arguments: ids, values, at the login a password.
    """
    if is_of_cluster(error):
        return "it is a node of a Redis Cluster; the cache needs one Redis, or sentinels"
    if not isinstance(error, (RedisError, OSError)):
        return ""
    first_line = next(iter(str(error).splitlines()), "")
    return first_line.partition(", with args")[0][:REASON_CHARACTERS_MAX]
