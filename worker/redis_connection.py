"""The connection to Redis: what its driver can't use stops the start, and no message holds a secret.

redis-py takes any option in a URL, time limits among them, and finds out when it connects that it knows no
such option. Here our own options count, and a connection is built, and its certificates are read, before the
first is needed.
"""

import ssl
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from shared.errors import SettingsError
from shared.settings import CacheSettings

REASON_CHARACTERS_MAX: Final = 200


def connection_pool(settings: CacheSettings) -> ConnectionPool:
    """Return the pool for `[cache]`. Connects to nothing yet. Raises SettingsError, without the password."""
    try:
        given: dict[str, Any] = dict(parse_url(settings.url))
        pool = ConnectionPool(**(given | _options(settings)))
        connection = pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
    except ssl.SSLError as error:
        reason = getattr(error, "reason", None) or error.args[0]
        raise SettingsError(
            f"[cache] url: its certificates, key or ciphers are of no use: {reason}"
        ) from None
    except OSError as error:
        raise SettingsError(f"[cache] url: its certificates or key: {error.strerror}") from None
    except (TypeError, ValueError, RedisError):  # whose words may repeat a part of the password
        raise SettingsError(
            "[cache] url: must be memory:// or redis://, rediss:// or unix://, its port a number and its"
            " options those of redis-py; in a password write %2F for /, %3F for ?, %23 for #"
        ) from None
    return pool


def _options(settings: CacheSettings) -> dict[str, Any]:
    timeout_seconds = settings.timeout_ms / 1_000
    return {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "retry": Retry(NoBackoff(), 0),  # redis-py's default of ten retries would outlast the window
        "decode_responses": False,
        # With the third, a server may send what nobody asked for: such as where to connect next.
        "protocol": 2,
        "driver_info": None,  # so that the account need not be allowed to tell which library we use
    }


def reason_of(error: Exception) -> str:
    """Return why Redis failed us, as far as that may be logged.

    Redis may quote a command that it doesn't know with its arguments: ids, values, at the login a password.
    """
    if not isinstance(error, (RedisError, OSError)):
        return ""
    first_line = next(iter(str(error).splitlines()), "")
    return first_line.partition(", with args")[0][:REASON_CHARACTERS_MAX]
