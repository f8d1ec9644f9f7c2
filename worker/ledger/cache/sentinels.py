"""Queries the cache's sentinels for the Redis that is the primary.

All are queried at once, each for at most `ANSWER_SECONDS_MAX`. One that was disconnected from the others may
still name the previous primary: of different answers, that of the latest failover is used. The answers of
sentinels are trusted as little as those of Redis: a wrong one costs at most the use of the cache.
"""

import asyncio
import os
import ssl
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import structlog
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from shared.sentinel_url import SentinelUrl
from shared.server_url import PORT_MAX, refuse_host

ANSWER_SECONDS_MAX: Final = 0.5
"""The time for the connection, login and answers of a sentinel. No batch waits for them, unlike for Redis, so it
is not bounded by `[cache] timeout_seconds`."""

REASON_CHARACTERS_MAX: Final = 60
_UNKNOWN: Final = "has no primary of that name"

_log = structlog.get_logger()


class PrimaryUnknown(RedisConnectionError):  # noqa: N818  (named after a state, as the faults of `shared.errors`)
    """No sentinel has named the primary."""

    def __init__(self, message: str, errors: Collection[Exception] = ()) -> None:
        """Take the message, and the errors of the sentinels that failed."""
        super().__init__(message)
        self.errors: Final = tuple(errors)


class Address(NamedTuple):
    """The host and port of a Redis or a sentinel."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Answer(NamedTuple):
    config_epoch: int
    """The number of the last failover that the sentinel knows; later failovers have higher numbers."""

    primary: Address


class Sentinels:
    """The sentinels, and the primary that they named last.

    It is the `sentinel_manager` of redis-py's pool, which gets the address of the primary from it without delay.
    """

    def __init__(self, url: SentinelUrl, options: Mapping[str, Any]) -> None:
        """Take the sentinels' URL, and the options of connections to them. Connects to nothing yet."""
        self._name: Final = url.primary_name
        self._options: Final = {
            **options,
            "username": url.username,
            "password": url.password,
            "socket_timeout": ANSWER_SECONDS_MAX,
            "socket_connect_timeout": ANSWER_SECONDS_MAX,
            "decode_responses": True,
        }
        self._sentinels: Final = [Address(*sentinel) for sentinel in url.sentinels]
        self._faults = ""
        self.primary: Address | None = None

    async def discover_master(self, _name: str) -> Address:
        """Return the primary that was named last. Raises PrimaryUnknown if none was named yet."""
        if self.primary is None:
            raise PrimaryUnknown("the sentinels have not been asked yet")
        return self.primary

    async def refresh(self) -> None:
        """Query every sentinel for the primary. Raises PrimaryUnknown if all fail, and keeps the previous one."""
        queries = [self._query(sentinel) for sentinel in self._sentinels]
        answers = await asyncio.gather(*queries, return_exceptions=True)
        found = [answer for answer in answers if isinstance(answer, _Answer)]
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        faults = self._describe_faults(answers)
        if not found:
            raise PrimaryUnknown(f"no sentinel names a primary of {self._name!r}: {faults}", errors)
        primary = max(found, key=lambda answer: answer.config_epoch).primary
        if primary != self.primary:
            _log.info("sentinels name the cache", primary=str(primary), sentinels=len(found))
        self.primary = primary
        if faults and faults != self._faults:
            _log.warning("sentinels of the cache fail", failing=len(errors), others=len(found), reason=faults)
        self._faults = faults

    def _describe_faults(self, answers: Sequence[object]) -> str:
        """Return the sentinels that fail with their reasons, grouped by reason."""
        failing: dict[str, list[str]] = {}
        for sentinel, answer in zip(self._sentinels, answers, strict=True):
            if isinstance(answer, Exception):
                failing.setdefault(_describe(answer), []).append(str(sentinel))
        return "; ".join(f"{', '.join(sentinels)}: {reason}" for reason, sentinels in failing.items())

    async def _query(self, sentinel: Address) -> _Answer:
        pool = ConnectionPool(**self._options, host=sentinel.host, port=sentinel.port)
        client = Redis.from_pool(pool)
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                # The address in SENTINEL MASTER is the previous one while the replicas are being reconfigured.
                address = await _call(client, "GET-MASTER-ADDR-BY-NAME", self._name)
                if address is None:
                    raise ResponseError(_UNKNOWN)
                state = await _call(client, "MASTER", self._name)
            return _read_answer(address, state)
        finally:
            with suppress(RedisError, OSError):  # the connection to a frozen sentinel does not close cleanly
                await pool.disconnect()


async def _call(client: Redis, command: str, name: str) -> Any:
    return await client.execute_command("SENTINEL", command, name)  # type: ignore[no-untyped-call]


def _read_answer(address: Sequence[str], state: Sequence[str]) -> _Answer:
    """Return a sentinel's answer. Raises ResponseError if it is malformed."""
    try:
        host, port = address
        fields = dict(zip(state[::2], state[1::2], strict=True))
        answer = _Answer(int(fields["config-epoch"]), Address(str(host), int(port)))
    except (TypeError, ValueError, KeyError):
        raise ResponseError("answers what no sentinel does") from None
    is_ipv6 = ":" in answer.primary.host
    if refuse_host(answer.primary.host, is_bracketed=is_ipv6) or not 0 < answer.primary.port <= PORT_MAX:
        raise ResponseError("names no host and port")
    return answer


def _describe(error: Exception) -> str:
    if isinstance(error, (TimeoutError, RedisTimeoutError)):
        return f"no answer within {ANSWER_SECONDS_MAX} s"
    if type(error) is RedisConnectionError:  # its message repeats the address
        return _describe_network(error.__cause__ or error.__context__)
    first_line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return first_line.partition(", with args")[0][:REASON_CHARACTERS_MAX]


def _describe_network(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror or "no connection"
    return "no connection"
