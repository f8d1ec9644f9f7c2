"""Connections to Redis, from settings that are checked at the start.

redis-py accepts any option in a URL, and fails on an unknown one only when it connects. So a connection is
built here, and its certificates are read, before the first one is needed. Our own options, such as the time
limits, override those of the URL. No error message contains a secret.
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
"""The most bytes in an answer of Redis: the values of a batch, with room for the protocol's own bytes, and for
errors in the place of values."""

SENTINEL_BYTES_MAX: Final = 16_384
"""The most bytes in an answer of a sentinel, the longest of which has some 1 KB."""

LOOKUPS_MAX: Final = 4
"""The most lookups of a host of Redis at a time: sentinels may name another host while the lookup of one hangs."""


class CacheServer:
    """The Redis server in use, which changes at a failover, and the connections to it."""

    def __init__(self, settings: CacheSettings) -> None:
        """Take `[cache]`. Connects to nothing yet. Raises SettingsError."""
        self.pool: Final = connection_pool(settings)
        self._sentinels: Final = self.pool.sentinel_manager if isinstance(self.pool, SentinelConnectionPool) else None

    @property
    def is_known(self) -> bool:
        """Whether there is a server to connect to: with sentinels, not before one has named it."""
        return self._sentinels is None or self._sentinels.primary is not None

    async def find(self) -> None:
        """Find out which server to connect to from now on. Raises PrimaryUnknown if no sentinel names one.

        Idle connections are closed, because the previous server may not answer any more, or be a replica by now.
        That also holds if a host name or a proxy leads to the primary, without sentinels.
        """
        if self._sentinels is not None:
            await self._sentinels.refresh()
        await self._close_idle()

    async def _close_idle(self) -> None:
        """Close idle connections, which are taken from the pool first, so that it gives them to no call meanwhile."""
        (idle, _), *_ = self.pool.get_connection_count()
        pop = self.pool.get_available_connection
        for connection in [pop() for _ in range(idle)]:  # type: ignore[no-untyped-call]
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)
            await self.pool.release(connection)


def connection_pool(settings: CacheSettings) -> ConnectionPool:
    """Return the pool for `[cache]`. Connects to nothing yet. Raises SettingsError, which has no password in it."""
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
    except (TypeError, ValueError, RedisError):  # the message may quote a part of the password
        raise SettingsError(
            "[cache] url: must be memory:// or redis://, rediss://, redis+sentinel://, rediss+sentinel:// or"
            " unix://, its port a number and its options those of redis-py; in a password write %2F for /,"
            " %3F for ?, %23 for #"
        ) from None
    return pool


def _make_pool(settings: CacheSettings) -> ConnectionPool:
    if is_sentinel_url(settings.url):
        return _make_sentinel_pool(read(settings.url), settings)
    url_options: dict[str, Any] = dict(parse_url(settings.url))
    if url_options.get("connection_class") is not UnixDomainSocketConnection:
        is_tls = "connection_class" in url_options
        url_options["connection_class"] = LookedUpSSLConnection if is_tls else LookedUpConnection
        url_options["lookups"] = Lookups(LOOKUPS_MAX)
    return ConnectionPool(**(url_options | _options(settings)))


def _make_sentinel_pool(url: SentinelUrl, settings: CacheSettings) -> SentinelConnectionPool:
    """Return a pool of connections to the primary. The URL's options of TLS are used for the sentinels, too."""
    url_options: dict[str, Any] = dict(parse_url(url.redis_url))
    tls_options = {name: value for name, value in url_options.items() if name.startswith("ssl_")}
    is_tls = url_options.pop("connection_class", None) is not None
    sentinel_options = {
        "connection_class": LookedUpSSLConnection if is_tls else LookedUpConnection,
        "lookups": Lookups(len(url.sentinels)),
        "parser_class": partial(AnswerParser, bytes_max=SENTINEL_BYTES_MAX),
    }
    sentinels = Sentinels(url, _options(settings) | tls_options | sentinel_options)
    primary_options = {
        "connection_class": LookedUpManagedSSLConnection if is_tls else LookedUpManagedConnection,
        "lookups": Lookups(LOOKUPS_MAX),
    }
    options = url_options | _options(settings) | primary_options
    return SentinelConnectionPool(url.primary_name, sentinels, **options)  # type: ignore[no-untyped-call]


def _options(settings: CacheSettings) -> dict[str, Any]:
    timeout_seconds = settings.timeout_seconds
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),  # redis-py's default of ten retries would outlast the provider's time limit
        "decode_responses": False,
        "parser_class": partial(AnswerParser, bytes_max=ANSWER_BYTES_MAX),
        # With RESP3 a server may send unrequested messages, for example where to connect next.
        "protocol": 2,
        "driver_info": None,  # else the account would need the right to CLIENT SETINFO
    }


def is_of_cluster(error: BaseException) -> bool:
    """Return whether an error is one that only nodes of a Redis Cluster send."""
    return isinstance(error, (AskError, ClusterCrossSlotError, TryAgainError)) or type(error) is ClusterDownError


def reason_of(error: Exception) -> str:
    """Return the reason of a failure, without what may not be logged.

    Redis quotes a command that it doesn't know with its arguments: ids, values, and for a login the password.
    """
    if is_of_cluster(error):
        return "it is a node of a Redis Cluster; the cache needs one Redis, or sentinels"
    if not isinstance(error, (RedisError, OSError)):
        return ""
    first_line = next(iter(str(error).splitlines()), "")
    return first_line.partition(", with args")[0][:REASON_CHARACTERS_MAX]
