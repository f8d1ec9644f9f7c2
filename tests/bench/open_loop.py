"""An open loop: requests leave when they are due, whether or not earlier ones were answered.

Wins come by chance, so many a second on average. The latency of each counts from the instant at which it was
due: what waits because the client, a connection or the system was late is not left out. Runs in a process of
its own, which shares the machine with what it measures, and prints what happened as JSON:
`python -m tests.bench.open_loop URL FILE PER_SECOND CONNECTIONS`.
"""

import asyncio
import math
import random
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import process_time
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from tests.bench.traffic import PAID, TURNS, WINDOW_SECONDS, read

QUANTILES: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0)
LAST_REPLY_SECONDS_MAX: Final = 15.0
HEAD_START_SECONDS: Final = 0.2
TICK_SECONDS: Final = 0.001
"""The least that is slept: uvloop counts whole milliseconds, and to sleep for less is to spin on a processor
that what is measured needs. What comes due meanwhile leaves late, which its latency counts."""

IDLE_SECONDS_MAX: Final = 3.0
"""Less than the five after which uvicorn closes an idle connection."""

READ_EVERY: Final = 16
"""A client that is late with sending still reads after so many."""


class Told(msgspec.Struct, frozen=True):
    """What the client says of a run."""

    sent: int
    unpaid: int
    """Answered, but not as paid: told to ask again."""

    missed: int
    """Not answered within the provider's window."""

    seconds: float
    """From when the first was due to the last reply."""

    cpu_us: float
    """What the client itself used meanwhile."""

    latency_ms: Sequence[float]
    """At each of QUANTILES, of all."""

    by_integration_ms: Mapping[str, Sequence[float]]


def due_times(number: int, per_second: float) -> list[float]:
    """Return when each of so many wins is due, in seconds: each by chance, on average so many a second."""
    chance = random.Random(number)
    return sorted(chance.uniform(0, number / per_second) for _ in range(number))


def quantiles(values: Sequence[float]) -> list[float]:
    """Return the values at QUANTILES: the least that so large a part does not exceed."""
    ordered = sorted(values)
    return [quantile(ordered, q) for q in QUANTILES]


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the least of values in their order that so large a part does not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


class Connection(asyncio.Protocol):
    """A kept-alive connection with one request under way at most."""

    transport: asyncio.Transport

    def __init__(self, client: "Client") -> None:
        """Take whom to tell of replies."""
        self._client: Final = client
        self._received = b""
        self._under_way: tuple[int, float] | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def send(self, number: int, due: float, request: bytes) -> None:
        """Send a request."""
        self._under_way = number, due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Tell the client when the reply is whole."""
        self._received += data
        head_bytes = self._received.find(b"\r\n\r\n") + 4
        if head_bytes < 4 or self._under_way is None:
            return
        head = self._received[:head_bytes].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._received) >= head_bytes + length:
            (number, due), reply = self._under_way, self._received
            self._under_way, self._received = None, b""
            self._client.answered(self, number, due, reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Have the client end if a request was under way: what was measured is worthless."""
        if self._under_way is not None:
            self._client.fail(ConnectionError(f"a connection was lost: {error}"))


class Client:
    """All connections, what waits for one, and what was answered."""

    def __init__(self, url: str, connections_max: int, number: int) -> None:
        """Take where to, over how many connections at most, and how many requests there will be."""
        address, loop = urlsplit(url), asyncio.get_running_loop()
        self._address: Final = address.hostname or "", address.port or 80
        self._openable = connections_max
        self._opening: Final[set[asyncio.Task[None]]] = set()
        self._free: Final[list[Connection]] = []
        self._waiting: Final[deque[tuple[int, float, bytes]]] = deque()
        self._latencies_ms: Final[list[float]] = [float("inf")] * number
        self._unanswered, self._unpaid, self._last = number, 0, 0.0
        self._clock: Final = loop.time
        self._ended: Final[asyncio.Future[None]] = loop.create_future()

    async def run(self, requests: Iterator[bytes], per_second: float) -> Told:
        """Send the requests when they are due.

        Raises ConnectionError, and TimeoutError if one is never answered.
        """
        start, used = self._clock() + HEAD_START_SECONDS, process_time()
        for number, after in enumerate(due_times(len(self._latencies_ms), per_second)):
            while (seconds := start + after - self._clock()) > 0 and not self._ended.done():
                await asyncio.sleep(max(seconds, TICK_SECONDS))
            self._send(number, start + after, next(requests))
            if not number % READ_EVERY:
                await asyncio.sleep(0)
        await asyncio.wait_for(self._ended, LAST_REPLY_SECONDS_MAX)
        return self._told(start, process_time() - used)

    def close(self) -> None:
        """Close the connections; what was measured stays."""
        while self._free:
            self._drop(self._free.pop())

    def _send(self, number: int, due: float, request: bytes) -> None:
        """Send at once over a free connection, else over the first that comes free or can be opened."""
        # The last that came free is taken first: if it was idle for long, the server may be closing it now.
        while self._free and self._free[-1].idle_since < self._clock() - IDLE_SECONDS_MAX:
            self._drop(self._free.pop())
        if self._free:
            self._free.pop().send(number, due, request)
            return
        self._waiting.append((number, due, request))
        if self._openable:
            self._openable -= 1
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        try:
            _, connection = await asyncio.get_running_loop().create_connection(lambda: Connection(self), *self._address)
        except OSError as error:
            self.fail(error)
        else:
            self._use(connection)

    def _drop(self, connection: Connection) -> None:
        connection.transport.close()
        self._openable += 1

    def _use(self, connection: Connection) -> None:
        """Give a connection its next request."""
        connection.idle_since = self._clock()
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._free.append(connection)

    def answered(self, connection: Connection, number: int, due: float, reply: bytes) -> None:
        """Note a reply."""
        self._last = self._clock()
        self._latencies_ms[number] = (self._last - due) * 1_000
        self._unpaid += PAID[TURNS[number % len(TURNS)]] not in reply
        self._unanswered -= 1
        self._use(connection)
        if not self._unanswered and not self._ended.done():
            self._ended.set_result(None)

    def fail(self, error: Exception) -> None:
        """End: not all can be answered."""
        if not self._ended.done():
            self._ended.set_exception(error)

    def _told(self, start: float, used_seconds: float) -> Told:
        all_ms = self._latencies_ms
        by_integration = {name: all_ms[n :: len(TURNS)] for n, name in enumerate(TURNS)}
        return Told(
            sent=len(all_ms),
            unpaid=self._unpaid,
            missed=sum(ms > WINDOW_SECONDS[name] * 1_000 for name, some in by_integration.items() for ms in some),
            seconds=self._last - start,
            cpu_us=used_seconds * 1_000_000,
            latency_ms=quantiles(all_ms),
            by_integration_ms={name: quantiles(some) for name, some in by_integration.items()},
        )


async def main(url: str, path: Path, per_second: float, connections: int) -> None:
    """Run, and print what happened."""
    client = Client(url, connections, sum(1 for _ in read(path)))
    told = await client.run(read(path), per_second)
    sys.stdout.buffer.write(msgspec.json.encode(told))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])))
