"""The circuit breaker of the cache decides when a cache that has failed is called again, and logs its faults.

A transient fault, such as a Redis that is down, is logged each time the circuit opens. A permanent one, which
stays until a person acts, such as a wrong password, is logged as an error once, and again when its cause
changes. An account may have the right to read but not to write: so a refusal is over once a call of the same
kind succeeds, not when any other does.
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
"""How long a cache that failed is not called: a slow cache must not slow every batch."""

CAUSES_MAX: Final = 10
"""The most exceptions in a chain of causes that are searched."""

_STATE_ERRORS: Final = frozenset({"BUSY", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "UNBLOCKED"})
"""The first words of errors that report a state of Redis, which may pass."""

Call = Literal["read", "write", "probe"]
"""The kinds of calls of the cache. A probe finds the server, and tests whether it can be used."""

CountFault = Callable[[str], None]
"""Counts a fault of the shared cache by its kind: `unverified` or `failed`; a refusal is `failed` and `refused`."""

_log = structlog.get_logger()


class CircuitBreaker:
    """The circuit to the cache: open while the cache is not called after a failure."""

    __slots__ = ("_count", "_open_until", "_refusals", "_transient_cause")

    def __init__(self, count: CountFault) -> None:
        """Take the function that counts faults."""
        self._count: Final = count
        self._open_until = 0.0
        self._transient_cause: tuple[str, str] | None = None
        self._refusals: Final[dict[Call, tuple[str, str]]] = {}

    @property
    def is_open(self) -> bool:
        """Whether the cache is not to be called now."""
        return time.monotonic() < self._open_until

    def record_failure(self, call: Call, error: Exception) -> None:
        """Open the circuit for PAUSE_SECONDS, and log the cause once for all calls that failed together."""
        self._count("failed")
        was_open = self.is_open
        self._open_until = time.monotonic() + PAUSE_SECONDS
        cause = _cause_of(error)
        if is_refusal(error):
            self._count("refused")
            is_known = cause in self._refusals.values()
            # A node of a cluster may serve a read or a write by chance, but no probe as long as it is in a cluster.
            self._refusals["probe" if is_of_cluster(error) else call] = cause
            if not is_known:
                _log.error("cache refuses us", setting="[cache] url", error=cause[0], reason=cause[1])
        elif not was_open or cause != self._transient_cause:
            self._transient_cause = cause
            self._refusals.clear()
            _log.warning("cache rests", seconds=PAUSE_SECONDS, error=cause[0], reason=cause[1])

    def record_success(self, call: Call) -> None:
        """End a refusal of this kind of call, and those of other kinds that had the same cause."""
        if (cause := self._refusals.get(call)) is None:
            return
        for refused in [refused for refused, other in self._refusals.items() if other == cause]:
            del self._refusals[refused]
        if not self._refusals:
            _log.info("cache serves again")


def _cause_of(error: Exception) -> tuple[str, str]:
    return "RedisCluster" if is_of_cluster(error) else type(error).__name__, reason_of(error)


def is_refusal(error: BaseException) -> bool:
    """Return whether an error is permanent: only other settings or rights would end it.

    >>> is_refusal(AuthenticationError("invalid username-password pair")), is_refusal(TypeError("option"))
    (True, True)
    >>> is_refusal(ResponseError("DB index is out of range")), is_refusal(ResponseError("BUSY a script runs"))
    (True, False)
    """
    if isinstance(error, PrimaryUnknown):
        return any(map(is_refusal, error.errors))
    if isinstance(error, (AuthenticationError, AuthorizationError)) or is_of_cluster(error):
        return True
    if isinstance(error, ResponseError):  # its subclasses report a state of Redis, except those of missing rights
        is_state = type(error) is not ResponseError or str(error).partition(" ")[0] in _STATE_ERRORS
        return not is_state or isinstance(error, (NoPermissionError, ReadOnlyError))
    if isinstance(error, (TypeError, ValueError)) and not isinstance(error, RedisError):
        return True  # an option or a host that the driver can't use
    return _is_caused_by_certificate(error)


def _is_caused_by_certificate(error: BaseException | None) -> bool:
    for _ in range(CAUSES_MAX):
        if error is None or isinstance(error, ssl.SSLCertVerificationError):
            break
        error = error.__cause__ or error.__context__
    return isinstance(error, ssl.SSLCertVerificationError)
