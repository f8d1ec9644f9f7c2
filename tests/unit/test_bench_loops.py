"""A run whose wins were not all paid, or whose clock began late, has no number."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.bench import traffic
from tests.bench.closed_loop import Books
from tests.bench.open_loop import Client, Told
from tests.bench.processes import TICK_US, cpu_us, memory
from tests.bench.subjects import Subject
from tests.bench.wrk import VoidRunError


class SubjectWith(Subject):
    """A subject that has answered and holds what a test says."""

    now: Books

    async def outcomes(self) -> dict[str, int]:
        return dict(self.now.outcomes)

    async def transfers(self) -> int:
        return self.now.transfers


async def answered(engine: AsyncEngine, transfers: int, unpaid: int = 0, **outcomes: int) -> int:
    """Return how many answers are counted, of 90 to 100, where there were 1,000 wins posted before."""
    subject = SubjectWith("", "", {}, engine)
    object.__setattr__(subject, "now", Books(subject, outcomes, transfers))
    return await Books(subject, {"posted": 1_000}, 1_000).check(90, 100, unpaid, unpaid)


@pytest.fixture
def engine() -> AsyncEngine:
    return create_async_engine("sqlite+aiosqlite://")


async def test_answers_that_the_books_bear_out_are_counted(engine: AsyncEngine) -> None:
    assert await answered(engine, 1_095, posted=1_095) == 95
    assert await answered(engine, 1_060, posted=1_060, replayed=30) == 90
    assert await answered(engine, 1_095, unpaid=2, posted=1_094, unavailable=2) == 94


async def test_void_is_a_run_that_the_books_do_not_bear_out(engine: AsyncEngine) -> None:
    with pytest.raises(VoidRunError, match="89 answers"):
        await answered(engine, 1_089, posted=1_089)
    with pytest.raises(VoidRunError, match="101 answers"):
        await answered(engine, 1_101, posted=1_101)
    with pytest.raises(VoidRunError, match="not to be paid"):
        await answered(engine, 1_094, posted=1_094, unavailable=1)
    with pytest.raises(VoidRunError, match="nothing was paid"):
        await answered(engine, 1_000, unpaid=95, posted=1_000, unavailable=95)
    with pytest.raises(VoidRunError, match="94 new transfers"):
        await answered(engine, 1_094, posted=1_095)
    with pytest.raises(VoidRunError, match="96 new transfers"):
        await answered(engine, 1_096, posted=1_095)


async def offer(replies: Iterator[bytes], number: int, connections: int) -> Told:
    """Offer so many wins, far more a second than are answered, to a server that gives these replies."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for body in replies:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
            await writer.drain()
            writer.write(body)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}", connections, number)
        try:
            return await client.run(islice(traffic.wins(), number), per_second=1_000_000)
        finally:
            client.close()
            await asyncio.sleep(0)


async def test_replies_that_do_not_say_paid_are_not_taken_for_paid() -> None:
    """One connection: so the replies come in the order of the requests."""
    paid = [b"{%b}" % traffic.PAID[name] for name in traffic.TURNS]
    of_others = [*paid[1:], b'{"status_code":"ERR_TIMEOUT"}']
    told = await offer(iter([*paid, *of_others]), 2 * len(paid), connections=1)
    assert (told.sent, told.missed, told.unpaid) == (2 * len(paid), 0, len(paid))


async def test_win_that_waits_for_a_connection_is_late_from_when_it_was_due() -> None:
    """All are due in an instant, on one connection: each waits for those before it, and that counts."""
    told = await offer(iter([b"{}"] * 400), 400, connections=1)
    least, most = told.latency_ms[0], told.latency_ms[-1]
    assert most / 1_000 >= told.seconds - 0.001
    assert least < most


async def test_lost_connection_ends_the_run() -> None:
    with pytest.raises(ConnectionError):
        await offer(iter([b"{}"] * 3), 8, connections=1)


_PARENT_OF_ONE_THAT_ENDED = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(one.ru_utime + one.ru_stime for one in both) * 1_000_000, flush=True)
sys.stdin.read()
"""


def test_cpu_of_children_that_ended_is_counted() -> None:
    command = [sys.executable, "-c", _PARENT_OF_ONE_THAT_ENDED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        used_us = float(parent.stdout.readline())
        told_us = cpu_us({"this": parent.pid})["this"]
    assert used_us - 4 * TICK_US <= told_us <= used_us + 4 * TICK_US
    assert 1 < memory(os.getpid()).now_mib <= memory(os.getpid()).peak_mib
