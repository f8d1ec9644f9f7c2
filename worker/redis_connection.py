"""The connection to Redis: everything that is wrong with its URL is said at the start, in one line.

redis-py takes any option in a URL, the timeouts among them, and finds out when it connects that it knows no
such option. Here an option is one of a few, and a connection is built, and its certificates are read, before
the first is needed.
"""

import ssl
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from shared.errors import SettingsError
from shared.settings import CacheSettings

REASON_CHARACTERS_MAX: Final = 200

_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS: Final = frozenset(
    {"db", *_FILES, "ssl_ca_path", "ssl_cert_reqs", "ssl_check_hostname", "ssl_ciphers"}
)


def connection_pool(settings: CacheSettings) -> ConnectionPool:
    """Return the pool for `[cache]`. Connects to nothing yet. Raises SettingsError, without the password."""
    options = _options(settings.url)
    timeout_seconds = settings.timeout_ms / 1_000
    pool = ConnectionPool(
        **options,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),  # redis-py's default of ten retries would outlast the window
        protocol=2,  # with the third, a server may send what nobody asked for: such as where to connect next
        driver_info=None,  # nor need the account be allowed to tell the server which library we use
    )
    try:
        connection = pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()
    except ssl.SSLError as error:
        reason = getattr(error, "reason", None) or error.args[0]
        raise SettingsError(
            f"[cache] url: its certificates, key or ciphers are of no use: {reason}"
        ) from None
    except OSError as error:
        raise SettingsError(f"[cache] url: its certificate or key: {error.strerror}") from None
    except TypeError:  # of an option that only another kind of connection has
        raise SettingsError("[cache] url: options that begin with ssl_ need rediss://") from None
    except RedisError:
        raise SettingsError("[cache] url: ssl_cert_reqs must be none, optional or required") from None
    return pool


def _options(url: str) -> dict[str, Any]:
    """Return the options that a URL gives, without repeating it: what is misread may be of the password."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
        parts = urlsplit(url)
        given = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise SettingsError(
            "[cache] url: must be memory:// or redis://, rediss:// (TLS) or unix://, the port a number"
            " (in a password write %2F for /, %3F for ?, %23 for #), and each option NAME=VALUE"
        ) from None
    for name in given:
        if name not in _OPTIONS:
            raise SettingsError(f"[cache] url: no option {name!r}; there are {', '.join(sorted(_OPTIONS))}")
    if parts.scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdecimal():
        raise SettingsError("[cache] url: what follows the host must be the number of a database")
    for name in _FILES:
        if (path := options.get(name)) is not None and not Path(path).is_file():
            raise SettingsError(f"[cache] url: {name}: there is no file {path!r}")
    return options


def reason_of(error: Exception) -> str:
    """Return why Redis failed us, as far as that may be logged.

    Redis may quote a command that it doesn't know with its arguments: ids, values, at the login a password.
    """
    if not isinstance(error, (RedisError, OSError)):
        return ""
    first_line = next(iter(str(error).splitlines()), "")
    return first_line.partition(", with args")[0][:REASON_CHARACTERS_MAX]
