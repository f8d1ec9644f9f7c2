"""When a cache that has failed is asked again, and what is said of it.

A fault that passes, such as a Redis that is down, is logged each time the cache rests. One that stays until a
person acts, such as a wrong password, is logged as an error once, and again when it is another. An account
may be let read and not write: what is refused is over when the same is done, and not when something else is.
"""

import ssl
import time
from collections.abc import Callable
from typing import Final, Literal

import structlog
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from worker.ledger.cache.connection import is_of_cluster, reason_of
from worker.ledger.cache.sentinels import PrimaryUnknown

PAUSE_SECONDS: Final = 1.0
"""How long a cache that failed is left alone: a slow cache must not slow every batch."""

CAUSES_MAX: Final = 10

_STATES: Final = frozenset({"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "UNBLOCKED"})
"""With which an error begins that is Redis' own state."""

Call = Literal["recall", "remember", "look"]
"""What the cache is asked for. To look is to find the server, and to try it."""

CountFault = Callable[[str], None]
"""Counts one fault of the shared cache, of a kind: `unverified`, `failed`, or `refused` beside `failed`."""

_log = structlog.get_logger()


class CircuitBreaker:
    """Whether the cache rests, and why."""

    __slots__ = ("_count", "_passing", "_refusals", "_until")

    def __init__(self, count: CountFault) -> None:
        """Take what counts faults."""
        self._count: Final = count
        self._until = 0.0
        self._passing: tuple[str, str] | None = None
        self._refusals: Final[dict[Call, tuple[str, str]]] = {}

    @property
    def is_on(self) -> bool:
        """Whether the cache is left alone now."""
        return time.monotonic() < self._until

    def begin(self, call: Call, error: Exception) -> None:
        """Leave the cache alone for a while, and say why, once for all calls that failed together for it."""
        self._count("failed")
        rests_already = self.is_on
        self._until = time.monotonic() + PAUSE_SECONDS
        cause = _cause_of(error)
        if is_refusal(error):
            self._count("refused")
            is_known = cause in self._refusals.values()
            # A cluster's node does some calls by chance, and all only once it is none any more.
            self._refusals["look" if is_of_cluster(error) else call] = cause
            if not is_known:
                _log.error("cache refuses us", setting="[cache] url", error=cause[0], reason=cause[1])
        elif not rests_already or cause != self._passing:
            self._passing = cause
            self._refusals.clear()
            _log.warning("cache rests", seconds=PAUSE_SECONDS, error=cause[0], reason=cause[1])

    def note_answer(self, call: Call) -> None:
        """Note that the cache has done what it was asked for; what was refused for that reason is over."""
        if (refusal := self._refusals.get(call)) is None:
            return
        for refused in [refused for refused, of_it in self._refusals.items() if of_it == refusal]:
            del self._refusals[refused]
        if not self._refusals:
            _log.info("cache serves again")


def _cause_of(error: Exception) -> tuple[str, str]:
    return "RedisCluster" if is_of_cluster(error) else type(error).__name__, reason_of(error)


def is_refusal(error: BaseException) -> bool:
    """Tell whether the same would happen again at any time: only other settings, or rights, change it.

    >>> is_refusal(AuthenticationError("invalid username-password pair")), is_refusal(TypeError("option"))
    (True, True)
    >>> is_refusal(ResponseError("DB index is out of range")), is_refusal(ResponseError("BUSY a script runs"))
    (True, False)
    """
    if isinstance(error, PrimaryUnknown):
        return any(map(is_refusal, error.errors))
    if isinstance(error, (AuthenticationError, AuthorizationError)) or is_of_cluster(error):
        return True
    if isinstance(error, ResponseError):  # a class below it is a state of Redis, but for missing rights
        is_state = type(error) is not ResponseError or str(error).partition(" ")[0] in _STATES
        return not is_state or isinstance(error, (NoPermissionError, ReadOnlyError))
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, RedisError):
        return True  # of an option or a host that the driver can't use
    return _is_certificate(error)


def _is_certificate(error: BaseException | None) -> bool:
    for _ in range(CAUSES_MAX):
        if error is None or isinstance(error, ssl.SSLCertVerificationError):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, ssl.SSLCertVerificationError)
