"""Providers in a surge: an open loop that goes on, whatever is answered, through phases of more or less load.

Unlike `open_loop`, where a reply that is missing spoils the run, a provider here hangs up when its window
ends, and what it sent all at once it sends again until it is told as paid. One thread over epoll, because at
three times the peak an event loop's own share of a small machine is what the measured system then lacks.
Runs in a process of its own, and prints what became of each attempt:
`python -m tests.bench.surge URL FILE PHASES`.
"""

import gc
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tests.bench.open_loop import HEAD_START_SECONDS, IDLE_SECONDS_MAX, due_times
from tests.bench.outcomes import Ended, Fate, Phase, Told
from tests.bench.traffic import PAID, PAID_BEFORE, TURNS, WINDOW_SECONDS, read

SWEEP_SECONDS: Final = 0.05
"""So often those whose window has ended are looked for."""

REST_SECONDS: Final = 0.001
"""So long it rests when nothing is due, deaf: to wake it for each reply would cost the measured system."""

RETRY_SECONDS: Final = 1.0
"""After so long what was sent at once and not told as paid is sent again, also all at once."""

CONNECTIONS_MAX: Final = 1_000
"""As of a proxy in front of gateways: what finds none free waits for one, or until its window ends."""

_SENT_AT_ONCE: Final = 64
"""A client that is late with sending still reads after so many."""

_REPLY_BYTES_MAX: Final = 65_536


class Attempt:
    """A win on its way: `due` on the monotonic clock, and the connection it is under way on."""

    __slots__ = ("due", "fate", "insists", "number", "request", "wire")

    def __init__(self, number: int, due: float, request: bytes, *, insists: bool) -> None:
        """Take its number in the file, its bytes, and whether it is sent again until it is told as paid."""
        self.number, self.due, self.request, self.insists = number, due, request, insists
        self.wire: Wire | None = None
        self.fate: Fate | None = None


class Wire:
    """A connection, with one request under way at most."""

    __slots__ = ("attempt", "idle_since", "received", "socket")

    def __init__(self, socket_: socket.socket, attempt: Attempt) -> None:
        """Take a connection that is being made, for an attempt."""
        self.socket, self.attempt, self.received, self.idle_since = socket_, attempt, b"", 0.0


class Client:
    """All connections, and what became of the attempts."""

    def __init__(self, url: str) -> None:
        """Take where to."""
        address = urlsplit(url)
        self._address: Final = address.hostname or "", address.port or 80
        self._poll: Final = select.epoll()
        self._wires: Final[dict[int, Wire]] = {}
        self._free: Final[list[Wire]] = []
        self._waiting: Final[deque[Attempt]] = deque()
        self._under_way: Final[Sequence[deque[Attempt]]] = [deque() for _ in TURNS]
        self._again: Final[list[Attempt]] = []
        self._again_at = float("inf")
        self._swept_at = 0.0
        self._ended: Final[list[tuple[float, float, tuple[Fate, bool, bool]]]] = []
        self._late_seconds_max = 0.0

    def run(self, requests: Iterator[bytes], phases: Sequence[Phase]) -> Told:
        """Send the requests when they are due, and return what became of each attempt."""
        times = list(_due_times(phases))
        began = time.monotonic() + HEAD_START_SECONDS
        attempts = _attempts(requests, times, began)
        coming = next(attempts, None)
        while coming or self._again or any(self._under_way):
            now = time.monotonic()
            coming = self._start_due(coming, attempts, now)
            if now >= self._again_at:
                self._send_again(now)
            if coming is None or coming.due > now:
                time.sleep(REST_SECONDS)
            self._read()
            if now >= self._swept_at + SWEEP_SECONDS:
                self._sweep(now)
        self._hang_up()
        ended = [
            # Rounded, or what is due as a phase begins may be of the second before it.
            Ended(round(due - began, 6), seconds * 1_000, *what)
            for due, seconds, what in self._ended
        ]
        return Told(began, self._late_seconds_max * 1_000, ended)

    def _start_due(self, coming: Attempt | None, after: Iterator[Attempt], now: float) -> Attempt | None:
        """Start some of those that are due; return the one that comes then."""
        if coming and coming.due <= now:
            self._late_seconds_max = max(self._late_seconds_max, now - coming.due)
        for _ in range(_SENT_AT_ONCE):
            if not coming or coming.due > now:
                break
            self._start(coming)
            coming = next(after, None)
        return coming

    def _hang_up(self) -> None:
        for wire in list(self._wires.values()):
            self._close(wire)
        self._poll.close()

    def _start(self, attempt: Attempt) -> None:
        self._under_way[attempt.number % len(TURNS)].append(attempt)
        self._waiting.append(attempt)
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and (self._free or len(self._wires) < CONNECTIONS_MAX):
            attempt = self._waiting.popleft()
            if attempt.fate is None:
                self._send_or_connect(attempt)

    def _send_or_connect(self, attempt: Attempt) -> None:
        """Send over the connection that came free last, or over a new one."""
        while self._free:
            wire = self._free.pop()
            if wire.idle_since >= time.monotonic() - IDLE_SECONDS_MAX:
                wire.attempt, attempt.wire = attempt, wire
                self._send(wire)
                return
            self._close(wire)
        try:
            made = socket.socket()
            made.setblocking(False)  # noqa: FBT003  (its own signature)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.connect_ex(self._address)
        except OSError:
            self._end(attempt, Fate.LOST)
            return
        attempt.wire = self._wires[made.fileno()] = Wire(made, attempt)
        self._poll.register(made, select.EPOLLOUT)

    def _send(self, wire: Wire) -> None:
        try:
            wire.socket.send(wire.attempt.request)
        except OSError:
            self._lose(wire)

    def _read(self) -> None:
        for descriptor, event in self._poll.poll(0):
            wire = self._wires.get(descriptor)
            if wire is None:
                continue
            if event & select.EPOLLOUT and not event & (select.EPOLLERR | select.EPOLLHUP):
                self._poll.modify(wire.socket, select.EPOLLIN)
                self._send(wire)
                continue
            try:
                got = wire.socket.recv(_REPLY_BYTES_MAX)
            except BlockingIOError:
                continue  # the event was of a connection whose number this one has got since
            except OSError:
                got = b""
            if not got:
                self._lose(wire)
            elif _is_whole(reply := wire.received + got):
                wire.received, wire.idle_since = b"", time.monotonic()
                self._free.append(wire)
                self._end(wire.attempt, _fate(wire.attempt, reply))
                self._send_waiting()
            else:
                wire.received = reply

    def _lose(self, wire: Wire) -> None:
        if wire in self._free:
            self._free.remove(wire)
        self._close(wire)
        if wire.attempt.fate is None:
            self._end(wire.attempt, Fate.LOST)
        self._send_waiting()

    def _close(self, wire: Wire) -> None:
        del self._wires[wire.socket.fileno()]
        wire.socket.close()

    def _end(self, attempt: Attempt, fate: Fate) -> None:
        now, what = time.monotonic(), (fate, attempt.insists, attempt.wire is not None)
        attempt.fate, attempt.wire = fate, None
        self._ended.append((attempt.due, now - attempt.due, what))
        if attempt.insists and fate is not Fate.PAID:
            self._again_at = min(self._again_at, now + RETRY_SECONDS)
            self._again.append(attempt)

    def _send_again(self, now: float) -> None:
        attempts, self._again_at = list(self._again), float("inf")
        self._again.clear()
        for old in attempts:
            self._start(Attempt(old.number, now, old.request, insists=True))

    def _sweep(self, now: float) -> None:
        """Hang up on whoever has not answered within the window."""
        self._swept_at = now
        for turn, under_way in zip(TURNS, self._under_way, strict=True):
            while under_way and (under_way[0].fate is not None or under_way[0].due + WINDOW_SECONDS[turn] < now):
                attempt = under_way.popleft()
                if attempt.fate is None:
                    if attempt.wire is not None:
                        self._close(attempt.wire)
                    self._end(attempt, Fate.MISSED)
        self._send_waiting()


def _due_times(phases: Sequence[Phase]) -> Iterator[tuple[float, bool]]:
    """Yield when each win is due, in seconds from the first phase's begin, and whether at once."""
    begin = 0.0
    for phase in phases:
        yield from [(begin, True)] * phase.at_once
        yield from ((begin + t, False) for t in due_times(phase.wins - phase.at_once, phase.per_second))
        begin += phase.seconds


def _attempts(requests: Iterator[bytes], times: Sequence[tuple[float, bool]], began: float) -> Iterator[Attempt]:
    for number, (seconds, at_once) in enumerate(times):
        yield Attempt(number, began + seconds, next(requests), insists=at_once)


def _is_whole(reply: bytes) -> bool:
    head, end, body = reply.partition(b"\r\n\r\n")
    return bool(end) and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])


def _fate(attempt: Attempt, reply: bytes) -> Fate:
    turn = TURNS[attempt.number % len(TURNS)]
    if PAID[turn] in reply or (attempt.insists and PAID_BEFORE[turn] in reply):
        return Fate.PAID
    return Fate.ASK_AGAIN


if __name__ == "__main__":
    gc.disable()  # it would stop the sending for ever longer, and there are no cycles to be found
    client = Client(sys.argv[1])
    told = client.run(read(Path(sys.argv[2])), msgspec.json.decode(sys.argv[3], type=list[Phase]))
    sys.stdout.buffer.write(msgspec.msgpack.encode(told))
