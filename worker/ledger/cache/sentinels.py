"""Asks the cache's sentinels which Redis is the primary.

All are asked at once, and none is waited for longer than `ANSWER_SECONDS_MAX`. One that was cut off from the
others may still name the primary of before: of different answers, that of the latest failover counts. What a
sentinel answers is believed as little as what Redis does: at worst there is no cache.
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
"""For connection, login and answers of a sentinel. No batch waits for it, unlike for `[cache] timeout_ms`."""

REASON_CHARACTERS_MAX: Final = 60
_UNKNOWN: Final = "has no primary of that name"

_log = structlog.get_logger()


class PrimaryUnknown(RedisConnectionError):  # noqa: N818  (it says what is so, as redis-py's own do)
    """No sentinel says which Redis is the primary."""

    def __init__(self, message: str, errors: Collection[Exception] = ()) -> None:
        """Take what to say, and why each sentinel that was asked does not say it."""
        super().__init__(message)
        self.errors: Final = tuple(errors)


class Address(NamedTuple):
    """A Redis, by host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class _Answer(NamedTuple):
    config_epoch: int
    """The number of the failover that the sentinel knows of; a later one has a higher number."""

    primary: Address


class Sentinels:
    """The sentinels, and the primary that they have named last.

    redis-py's pool asks this object, as its `sentinel_manager`, where to connect, and has its answer at once.
    """

    def __init__(self, place: SentinelUrl, options: Mapping[str, Any]) -> None:
        """Take where they are, and the options of connections to them. Connects to nothing yet."""
        self._name: Final = place.primary_name
        self._options: Final = {
            **options,
            "username": place.username,
            "password": place.password,
            "socket_timeout": ANSWER_SECONDS_MAX,
            "socket_connect_timeout": ANSWER_SECONDS_MAX,
            "decode_responses": True,
        }
        self._sentinels: Final = [Address(*sentinel) for sentinel in place.sentinels]
        self._faults = ""
        self.primary: Address | None = None

    async def discover_master(self, _name: str) -> Address:
        """Return the primary that was named last. Raises PrimaryUnknown when none was named yet."""
        if self.primary is None:
            raise PrimaryUnknown("the sentinels have not been asked yet")
        return self.primary

    async def look(self) -> None:
        """Ask every sentinel for the primary. Raises PrimaryUnknown, and the one of before stays named."""
        asked = [self._ask(sentinel) for sentinel in self._sentinels]
        answers = await asyncio.gather(*asked, return_exceptions=True)
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
        """Return which sentinels fail and why, those together that fail for one reason."""
        failing: dict[str, list[str]] = {}
        for sentinel, answer in zip(self._sentinels, answers, strict=True):
            if isinstance(answer, Exception):
                failing.setdefault(_describe(answer), []).append(str(sentinel))
        return "; ".join(f"{', '.join(sentinels)}: {reason}" for reason, sentinels in failing.items())

    async def _ask(self, sentinel: Address) -> _Answer:
        pool = ConnectionPool(**self._options, host=sentinel.host, port=sentinel.port)
        client = Redis.from_pool(pool)
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                # SENTINEL MASTER has the address of before while the replicas are being reconfigured.
                place = await _call(client, "GET-MASTER-ADDR-BY-NAME", self._name)
                if place is None:
                    raise ResponseError(_UNKNOWN)
                state = await _call(client, "MASTER", self._name)
            return _read_answer(place, state)
        finally:
            with suppress(RedisError, OSError):  # one that is frozen does not close in good order
                await pool.disconnect()


async def _call(client: Redis, command: str, name: str) -> Any:
    return await client.execute_command("SENTINEL", command, name)  # type: ignore[no-untyped-call]


def _read_answer(place: Sequence[str], state: Sequence[str]) -> _Answer:
    """Return what a sentinel has answered. Raises ResponseError for what no sentinel answers."""
    try:
        host, port = place
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
    if type(error) is RedisConnectionError:  # its words name the place again
        return _describe_network(error.__cause__ or error.__context__)
    first_line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return first_line.partition(", with args")[0][:REASON_CHARACTERS_MAX]


def _describe_network(error: BaseException | None) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else error.strerror or "no connection"
    return "no connection"
