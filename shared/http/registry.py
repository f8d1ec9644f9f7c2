"""Keeps the connections of one port: their number, what each waits for and since when, and the bytes they hold."""

import asyncio
from collections import OrderedDict
from enum import IntEnum
from typing import Final, Protocol

from shared.http.outbox import Outbox
from shared.http.refusals import Refusal, RefusalLog
from shared.runtime import MemoryTrimmer
from shared.settings_http import HttpBounds

SWEEP_SECONDS: Final = 0.25

RENEWED_EVERY_SECONDS: Final = 1.0
"""A restarted wait is recorded at most this often, so it may end this much before its bound."""

LINGER_SECONDS: Final = 2.0
"""How long a client may take to read a refusal before its connection is reset."""

SMALL_BYTES: Final = 4_096
"""An unanswered request of at most this size is never refused for the bytes that others hold."""

TRIM_BYTES_MIN: Final = 8_388_608
"""After unanswered requests have held this much, freed memory is returned to the system."""

QUIET_SWEEPS: Final = 8


class Phase(IntEnum):
    """What a connection waits for."""

    BUSY = 0
    """The application: has no time limit here, and is never evicted."""
    HEAD = 1
    BODY = 2
    IDLE = 3
    """The next request."""
    WRITE = 4
    """The client, to read replies."""
    LINGER = 5
    """The client, to read the refusal."""
    HANDSHAKE = 6
    """The end of the TLS handshake."""


_REFUSALS: Final = {
    Phase.HEAD: Refusal.HEAD_SECONDS,
    Phase.BODY: Refusal.BODY_SECONDS,
    Phase.IDLE: Refusal.IDLE_SECONDS,
    Phase.WRITE: Refusal.WRITE_SECONDS,
    Phase.HANDSHAKE: Refusal.HANDSHAKE_SECONDS,
}
_EVICTABLE: Final = (Phase.IDLE, Phase.LINGER, Phase.HEAD, Phase.BODY, Phase.WRITE)


class Member(Protocol):
    """A connection as the registry sees it. The four attributes belong to the registry."""

    phase: Phase
    since: float
    held_bytes: int
    is_trusted: bool

    def expire(self, refusal: Refusal | None) -> None:
        """Close the connection, because it has waited too long or to make room for another."""


class ConnectionRegistry:
    """Bounds a port's connections in number, time and bytes.

    Each phase has one time limit, so a dict in insertion order has the longest wait first: an expired connection
    is found without a search, and none needs a timer of its own.
    """

    def __init__(
        self, bounds: HttpBounds, refusals: RefusalLog | None = None, *, app_reports_trust: bool = False
    ) -> None:
        """Take the bounds, the refusal log, and whether the application reports which connections to trust.

        If it does not, a connection is trusted once it has sent a whole request.
        """
        self.bounds: Final = bounds
        self.app_reports_trust: Final = app_reports_trust
        self.outbox: Final = Outbox()
        self.refusals: Final = refusals or RefusalLog()
        self._seconds_max: Final = {
            Phase.HEAD: bounds.head_seconds_max,
            Phase.BODY: bounds.body_seconds_max,
            Phase.IDLE: bounds.idle_seconds_max,
            Phase.WRITE: bounds.write_seconds_max,
            Phase.LINGER: LINGER_SECONDS,
            Phase.HANDSHAKE: bounds.head_seconds_max,
        }
        self._waiting: Final[tuple[dict[Member, None], ...]] = tuple({} for _ in Phase)
        self._fresh: Final[OrderedDict[Member, None]] = OrderedDict()
        """Connections whose first request has not arrived in full, or was answered by the interceptor, oldest first.

        An OrderedDict, because finding a plain dict's first key is slow after many were removed from its front.
        """
        self._answered_untrusted: Final[OrderedDict[Member, None]] = OrderedDict()
        """Connections whose requests the application answered and none of which it trusted, longest wait first."""
        self._number = 0
        self._held_bytes = self._untrusted_bytes = 0
        """The bytes of all unanswered requests, and of those on connections that are not trusted."""
        self._memory: Final = MemoryTrimmer(TRIM_BYTES_MIN, QUIET_SWEEPS)
        self._loop: asyncio.AbstractEventLoop | None = None

    def admit(self, member: Member, phase: Phase = Phase.HEAD) -> bool:
        """Register a new connection if there is room, or if another one can be evicted for it."""
        if self._number >= self.bounds.connections_max and not self._evict_one():
            return False
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self._number += 1
        self._fresh[member] = None
        member.phase, member.since = phase, self._loop.time()
        self._waiting[phase][member] = None
        return True

    def remove(self, member: Member) -> None:
        """Remove a connection; one that was never admitted, or was removed already, is ignored."""
        self._waiting[member.phase].pop(member, None)
        self.hold(member, 0)
        self._fresh.pop(member, None)
        self._answered_untrusted.pop(member, None)
        if member.since >= 0:
            member.since = -1
            self._number -= 1

    def trust(self, member: Member) -> None:
        """Mark a connection as trusted, so that it is among the last to be evicted."""
        if not member.is_trusted:
            self._untrusted_bytes -= member.held_bytes
        member.is_trusted = True
        self._fresh.pop(member, None)
        self._answered_untrusted.pop(member, None)

    def move(self, member: Member, phase: Phase, *, is_new: bool = False) -> None:
        """Record what a connection waits for. `is_new` restarts a wait of the same kind, because something arrived."""
        if phase is member.phase and not is_new:
            return
        assert self._loop is not None  # noqa: S101
        now = self._loop.time()
        if phase is member.phase and now < member.since + RENEWED_EVERY_SECONDS:
            return
        self._waiting[member.phase].pop(member, None)
        if not member.is_trusted:
            self._classify(member, phase)
        member.phase, member.since = phase, now
        self._waiting[phase][member] = None

    def hold(self, member: Member, held_bytes: int) -> bool:
        """Record the bytes of unanswered requests that a connection holds, and return whether it may hold them.

        Where the application reports trust, all untrusted connections together have half of the room. When it is
        full, the unfinished request of a less trusted connection is refused first, or of an equally trusted one that
        holds more.
        """
        more_bytes = held_bytes - member.held_bytes
        self._held_bytes += more_bytes
        if not member.is_trusted:
            self._untrusted_bytes += more_bytes
        member.held_bytes = held_bytes
        if more_bytes <= 0 or held_bytes <= SMALL_BYTES:
            return True
        self._memory.record(self._held_bytes)
        if self._has_room_for_bytes(member):
            return True
        unfinished = (*self._waiting[Phase.BODY], *self._waiting[Phase.HEAD])
        largest = max(unfinished, key=_eviction_rank, default=member)
        if _eviction_rank(largest) > _eviction_rank(member):
            largest.expire(Refusal.BUFFERED_BYTES)
        return self._has_room_for_bytes(member)

    def _has_room_for_bytes(self, member: Member) -> bool:
        bytes_max = self.bounds.buffered_bytes_max
        has_any = self._held_bytes <= bytes_max
        if member.is_trusted or not self.app_reports_trust:
            return has_any
        return has_any and 2 * self._untrusted_bytes <= bytes_max

    def _classify(self, member: Member, phase: Phase) -> None:
        """Keep an untrusted connection from eviction while its request is being answered; afterwards it goes first."""
        if phase is Phase.BUSY:
            self._fresh.pop(member, None)
            self._answered_untrusted.pop(member, None)
        elif member.phase is Phase.BUSY:
            self._answered_untrusted[member] = None

    def _evict_one(self) -> bool:
        """Close the connection that has waited longest, and return whether there was one.

        Connections whose answered requests were not trusted go first. Next go fresh ones, if they are at least half of
        those that can be closed; otherwise all others go before them. So a client that opens many connections displaces
        at most half of the others, and trusted connections leave half of the room to new ones, which need some
        milliseconds to send a request.
        """
        others = [self._waiting[phase] for phase in _EVICTABLE]
        has_many_fresh = 2 * len(self._fresh) >= self._number - len(self._waiting[Phase.BUSY])
        rest = (self._fresh, *others) if has_many_fresh else (*others, self._fresh)
        for waiting in (self._answered_untrusted, *rest):
            for member in waiting:
                self.remove(member)
                member.expire(Refusal.CONNECTIONS)
                return True
        return False

    def _sweep(self) -> None:
        """Close connections that have waited too long; run again while there are connections or memory to return."""
        self._memory.check(self._held_bytes)
        if self._loop is None or not (self._number or self._memory.is_due):
            self._loop = None
            return
        self._loop.call_later(SWEEP_SECONDS, self._sweep)
        now = self._loop.time()
        for phase, seconds_max in self._seconds_max.items():
            waiting = self._waiting[phase]
            while (member := next(iter(waiting), None)) is not None and member.since + seconds_max <= now:
                del waiting[member]
                member.expire(_REFUSALS.get(phase))


def _eviction_rank(member: Member) -> tuple[bool, int]:
    """Return the order in which connections have to give up their bytes: the highest goes first."""
    return not member.is_trusted, member.held_bytes
