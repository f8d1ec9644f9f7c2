"""All connections of one port: how many, what each waits for and since when, and how many bytes they hold."""

import asyncio
from collections import OrderedDict
from enum import IntEnum
from typing import Final, Protocol

from shared.http.outbox import Outbox
from shared.http.refusals import Refusal, RefusalLog
from shared.runtime import MemoryReturn
from shared.settings_http import HttpBounds

SWEEP_SECONDS: Final = 0.25

RENEWED_EVERY_SECONDS: Final = 1.0
"""A wait that begins anew is noted so often at most, and may end so much sooner than its bound."""

LINGER_SECONDS: Final = 2.0
"""A client has so long to read why it was refused, before the connection is reset."""

SMALL_BYTES: Final = 4_096
"""An unanswered request of no more bytes is never refused for what others hold."""

MUCH_BYTES: Final = 8_388_608
"""Where unanswered requests held so much, the memory that they took is given back after them."""

QUIET_SWEEPS: Final = 8


class Phase(IntEnum):
    """What a connection waits for."""

    BUSY = 0
    """The application: without bound here, and never closed to make room."""
    HEAD = 1
    BODY = 2
    IDLE = 3
    """The next request."""
    WRITE = 4
    """Its client, to read replies."""
    LINGER = 5
    """Its client, to read why it was refused."""
    HANDSHAKE = 6
    """The end of a TLS handshake."""


_REFUSALS: Final = {
    Phase.HEAD: Refusal.HEAD_SECONDS,
    Phase.BODY: Refusal.BODY_SECONDS,
    Phase.IDLE: Refusal.IDLE_SECONDS,
    Phase.WRITE: Refusal.WRITE_SECONDS,
    Phase.HANDSHAKE: Refusal.HANDSHAKE_SECONDS,
}
_MAKING_ROOM: Final = (Phase.IDLE, Phase.LINGER, Phase.HEAD, Phase.BODY, Phase.WRITE)


class Member(Protocol):
    """A connection, as the registry handles it. It keeps four values of the registry's."""

    phase: Phase
    since: float
    held_bytes: int
    is_trusted: bool

    def expire(self, refusal: Refusal | None) -> None:
        """Close the connection, because it has waited for too long."""


class ConnectionRegistry:
    """Bounds connections in number, time and bytes.

    Each phase has one bound on its time, so a dict in the order of insertion has the longest wait first:
    whatever has to be closed is found without a search, and no connection has a timer of its own.
    """

    def __init__(
        self, bounds: HttpBounds, refusals: RefusalLog | None = None, *, is_told_of_trust: bool = False
    ) -> None:
        """Take the bounds, where refusals are counted, and whether the application says whom to trust.

        Where it does not, a connection that has sent a whole request is trusted.
        """
        self.bounds: Final = bounds
        self.is_told_of_trust: Final = is_told_of_trust
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
        """Those whose first request is still to come, or was answered unread, in the order of their coming.

        Not a dict, whose first is slow to find where many before it were removed.
        """
        self._unproven: Final[OrderedDict[Member, None]] = OrderedDict()
        """Those whose requests were read and none of them trusted, longest wait first."""
        self._number = 0
        self._held_bytes = self._untrusted_bytes = 0
        """Of unanswered requests, and those among them that came on connections that are not trusted."""
        self._memory: Final = MemoryReturn(MUCH_BYTES, QUIET_SWEEPS)
        self._loop: asyncio.AbstractEventLoop | None = None

    def admit(self, member: Member, phase: Phase = Phase.HEAD) -> bool:
        """Take a new connection if there is room, or another one that can be closed to make some."""
        if self._number >= self.bounds.connections_max and not self._make_room():
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
        """Forget a connection that was admitted. Nothing happens to one that is forgotten already."""
        self._waiting[member.phase].pop(member, None)
        self.hold(member, 0)
        self._fresh.pop(member, None)
        self._unproven.pop(member, None)
        if member.since >= 0:
            member.since = -1
            self._number -= 1

    def trust(self, member: Member) -> None:
        """Note that a connection has carried an honest request: it is one of those that are closed last."""
        if not member.is_trusted:
            self._untrusted_bytes -= member.held_bytes
        member.is_trusted = True
        self._fresh.pop(member, None)
        self._unproven.pop(member, None)

    def move(self, member: Member, phase: Phase, *, is_new: bool = False) -> None:
        """Note what a connection waits for; `is_new` where it did so before, and something came since."""
        if phase is member.phase and not is_new:
            return
        assert self._loop is not None  # noqa: S101
        now = self._loop.time()
        if phase is member.phase and now < member.since + RENEWED_EVERY_SECONDS:
            return
        self._waiting[member.phase].pop(member, None)
        if not member.is_trusted:
            self._place(member, phase)
        member.phase, member.since = phase, now
        self._waiting[phase][member] = None

    def hold(self, member: Member, held_bytes: int) -> bool:
        """Note how many bytes of unanswered requests a connection holds, and return whether it may.

        Where the application says whom it trusts, all others together have half of the room. Where it is
        full, the unfinished request of one that is trusted less, or as much and holds more, is refused first.
        """
        more_bytes = held_bytes - member.held_bytes
        self._held_bytes += more_bytes
        if not member.is_trusted:
            self._untrusted_bytes += more_bytes
        member.held_bytes = held_bytes
        if more_bytes <= 0 or held_bytes <= SMALL_BYTES:
            return True
        self._memory.note(self._held_bytes)
        if self._has_bytes(member):
            return True
        unfinished = (*self._waiting[Phase.BODY], *self._waiting[Phase.HEAD])
        largest = max(unfinished, key=_dispensability, default=member)
        if _dispensability(largest) > _dispensability(member):
            largest.expire(Refusal.BUFFERED_BYTES)
        return self._has_bytes(member)

    def _has_bytes(self, member: Member) -> bool:
        bytes_max = self.bounds.buffered_bytes_max
        has_any = self._held_bytes <= bytes_max
        if member.is_trusted or not self.is_told_of_trust:
            return has_any
        return has_any and 2 * self._untrusted_bytes <= bytes_max

    def _place(self, member: Member, phase: Phase) -> None:
        """Keep a connection that is not trusted out of the way while its request is being answered."""
        if phase is Phase.BUSY:
            self._fresh.pop(member, None)
            self._unproven.pop(member, None)
        elif member.phase is Phase.BUSY:
            self._unproven[member] = None

    def _make_room(self) -> bool:
        """Close what has waited longest: among those first whose requests nobody believed.

        Then among newcomers while they are half of what can be closed. So a client that opens many
        connections closes no more than half of the others, and trusted ones leave half of the room to
        newcomers, which need some milliseconds to send a request.
        """
        others = [self._waiting[phase] for phase in _MAKING_ROOM]
        are_many = 2 * len(self._fresh) >= self._number - len(self._waiting[Phase.BUSY])
        rest = (self._fresh, *others) if are_many else (*others, self._fresh)
        for waiting in (self._unproven, *rest):
            for member in waiting:
                self.remove(member)
                member.expire(Refusal.CONNECTIONS)
                return True
        return False

    def _sweep(self) -> None:
        """Close what has waited for too long, and come again while there is something to look after."""
        self._memory.look(self._held_bytes)
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


def _dispensability(member: Member) -> tuple[bool, int]:
    """Order connections by which of them is to give up its bytes first."""
    return not member.is_trusted, member.held_bytes
