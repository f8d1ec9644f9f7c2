"""What is told of a surge is what became of each win, and the few numbers say the same."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import islice

import pytest

from tests.bench import surge, traffic
from tests.bench.outcomes import Ended, Fate, Phase, Told
from tests.bench.overload import hold_against_books, phases_at
from tests.bench.overload_findings import (
    CALM,
    CALM_AGAIN,
    STORM,
    SURGE,
    by_second,
    in_storm,
    in_surge,
    quantile,
)
from tests.bench.surge import Client
from tests.bench.wrk import VoidRunError

Reply = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a server does when it has a whole request."""

PAID_BY_ALL = b"{%b}" % b",".join(traffic.PAID.values())
"""A body that says paid to whichever provider reads it."""

AT_ONCE = Phase("burst", seconds=0.01, per_second=0, at_once=8)


def says(body: bytes) -> Reply:
    """Answer every request with a body, in two pieces."""

    async def reply(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        await writer.drain()
        writer.write(body)

    return reply


def in_turn(*replies: Reply) -> Reply:
    """Answer each request, of all connections, with the next of these, the last one for good."""
    left = list(replies)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)

    return reply


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a reset."""
    made: socket.socket = writer.get_extra_info("socket")
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.close()


@asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[str]:
    """Run a server; yield its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                await reply(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()  # the client hung up

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def offer(reply: Reply, *phases: Phase) -> Told:
    """Send new wins in phases to a server that replies like this."""
    async with serving(reply) as url:
        requests = islice(traffic.wins(), sum(phase.wins for phase in phases))
        return await asyncio.to_thread(Client(url).run, requests, phases)


def fates(told: Told) -> list[Fate]:
    """Return what became of each attempt, in the order in which they ended."""
    return [one.fate for one in told.ended]


async def test_reply_that_says_paid_is_paid() -> None:
    told = await offer(says(PAID_BY_ALL), Phase("calm", seconds=0.1, per_second=400))
    assert fates(told) == [Fate.PAID] * 40
    assert all(0 <= one.due_seconds < 0.1 and one.latency_ms > 0 and not one.at_once for one in told.ended)


async def test_reply_that_says_anything_else_is_ask_again() -> None:
    told = await offer(says(b'{"code":11}'), Phase("calm", seconds=0.1, per_second=400))
    assert fates(told) == [Fate.ASK_AGAIN] * 40


async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Leave a request without an answer until the client hangs up."""
    await reader.read()


async def test_win_without_an_answer_in_its_window_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surge, "WINDOW_SECONDS", dict.fromkeys(traffic.TURNS, 0.1))
    told = await offer(never, Phase("calm", seconds=0.01, per_second=800))
    assert fates(told) == [Fate.MISSED] * 8
    assert all(one.latency_ms >= 100 for one in told.ended)


async def test_provider_hangs_up_when_its_window_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over one connection at most: so the next provider's win is only sent because that happened."""
    windows = {name: 0.1 if turn == 0 else 60 for turn, name in enumerate(traffic.TURNS)}
    monkeypatch.setattr(surge, "WINDOW_SECONDS", windows)
    monkeypatch.setattr(surge, "CONNECTIONS_MAX", 1)
    told = await offer(in_turn(never, says(PAID_BY_ALL)), Phase("calm", seconds=0.001, per_second=2_000))
    assert fates(told) == [Fate.MISSED, Fate.PAID]


async def test_win_that_finds_no_connection_in_its_window_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = {name: 0.2 if turn == 0 else 0.1 for turn, name in enumerate(traffic.TURNS)}
    monkeypatch.setattr(surge, "WINDOW_SECONDS", windows)
    monkeypatch.setattr(surge, "CONNECTIONS_MAX", 1)
    told = await offer(never, Phase("calm", seconds=0.001, per_second=2_000))
    assert fates(told) == [Fate.MISSED] * 2
    assert sorted(one.had_connection for one in told.ended) == [False, True]


async def test_connection_that_is_reset_is_lost() -> None:
    told = await offer(resets, Phase("calm", seconds=0.01, per_second=800))
    assert fates(told) == [Fate.LOST] * 8


async def test_connection_that_is_refused_is_lost() -> None:
    async with serving(resets) as url:
        pass
    requests, phases = islice(traffic.wins(), 8), [Phase("calm", seconds=0.01, per_second=800)]
    assert fates(await asyncio.to_thread(Client(url).run, requests, phases)) == [Fate.LOST] * 8


async def test_what_is_sent_at_once_is_sent_again_until_it_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surge, "RETRY_SECONDS", 0.05)
    told = await offer(in_turn(*[says(b"{}")] * 8, *[resets] * 3, says(PAID_BY_ALL)), AT_ONCE)
    assert fates(told).count(Fate.ASK_AGAIN) == 8
    assert fates(told).count(Fate.LOST) == 3
    assert fates(told).count(Fate.PAID) == 8
    assert all(one.at_once for one in told.ended)
    assert sorted(one.due_seconds for one in told.ended)[:9][-2:] > [0.0, 0.05]


async def test_what_was_paid_before_is_told_as_paid_when_it_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By igamingace's own code; to another provider that says nothing."""
    monkeypatch.setattr(surge, "RETRY_SECONDS", 0.05)
    wins = len(traffic.TURNS)
    told = await offer(in_turn(*[says(b'{"code":11}')] * wins, says(PAID_BY_ALL)), Phase("burst", 0.01, 0, wins))
    assert sorted(fates(told)) == [Fate.PAID] * wins + [Fate.ASK_AGAIN] * (wins - 1)


async def test_phases_follow_each_other() -> None:
    phases = [Phase("calm", 0.1, 100), Phase("burst", 0.1, 100, at_once=5)]
    told = await offer(says(PAID_BY_ALL), *phases)
    assert sorted(one.due_seconds for one in told.ended if one.at_once) == [0.1] * 5
    assert sum(one.due_seconds < 0.1 for one in told.ended) == 10
    assert sum(one.due_seconds > 0.1 for one in told.ended) == 10


PHASES = (Phase(CALM, 2, 1), Phase(SURGE, 8, 4), Phase(CALM_AGAIN, 3, 1), Phase(STORM, 3, 1, 2))


def every_second(seconds: Sequence[int], fate: Fate, latency_ms: float = 10, each: int = 1) -> list[Ended]:
    """Return so many wins that were due in the middle of each of these seconds."""
    return [Ended(second + 0.5, latency_ms, fate, at_once=False) for second in seconds for _ in range(each)]


ALL_WELL = [*every_second(range(16), Fate.PAID), Ended(13.0, 10, Fate.PAID, at_once=True)]


def test_wins_are_counted_in_the_second_in_which_they_were_due() -> None:
    late = [Ended(4.9, 3_000, Fate.MISSED, at_once=False), Ended(16.2, 10, Fate.PAID, at_once=True)]
    seconds = by_second([*ALL_WELL, *late], PHASES)
    assert [s.phase for s in seconds] == [CALM] * 2 + [SURGE] * 8 + [CALM_AGAIN] * 3 + [STORM] * 3
    assert [s.paid for s in seconds] == [1] * 13 + [2, 1, 1]
    assert [n for n, s in enumerate(seconds) if s.missed] == [4]


def test_goodput_is_what_was_told_as_paid_in_the_middle_of_the_surge() -> None:
    ended = [
        *every_second([2, 3, 7, 8, 9], Fate.PAID, each=100),
        *every_second([4, 5, 6], Fate.PAID, each=20),
        *every_second([4, 5, 6], Fate.ASK_AGAIN, latency_ms=7, each=30),
        *every_second([4], Fate.MISSED, each=43),
        *[Ended(4.5, 2_500, Fate.MISSED, at_once=False, had_connection=False)] * 7,
        *every_second([9], Fate.LOST, each=10),
    ]
    told = in_surge([*ended, *every_second([0, 1, 10, 11, 12], Fate.PAID)], PHASES)
    assert told.wins == 500 + 60 + 90 + 50 + 10
    assert told.goodput_per_second == 20
    assert told.never_sent_share == 7 / 710
    assert (told.ask_again_share, told.missed_share, told.lost_share) == (90 / 710, 50 / 710, 10 / 710)
    assert (told.ask_again_p50_ms, told.ask_again_max_ms, told.paid_p99_ms) == (7, 7, 10)


@pytest.mark.parametrize(
    ("latency_ms", "fate", "second", "seconds_to_normal"),
    [
        (10, Fate.PAID, 10, 0),
        (250, Fate.PAID, 11, 0),
        (251, Fate.PAID, 10, 1),
        (10, Fate.ASK_AGAIN, 11, 2),
        (10, Fate.MISSED, 10, 1),
        (10, Fate.LOST, 10, 1),
        (251, Fate.PAID, 12, None),
    ],
)
def test_normal_is_when_all_are_paid_soon_and_it_stays_so(
    latency_ms: float, fate: Fate, second: int, seconds_to_normal: int | None
) -> None:
    told = in_surge([*ALL_WELL, *every_second([second], fate, latency_ms)], PHASES)
    assert told.seconds_to_normal == seconds_to_normal


def test_normal_is_twice_the_latency_of_the_calm_where_that_is_more() -> None:
    slow_calm = every_second([0, 1], Fate.PAID, latency_ms=200)
    assert in_surge([*ALL_WELL, *slow_calm, *every_second([10], Fate.PAID, 400)], PHASES).seconds_to_normal == 0
    assert in_surge([*ALL_WELL, *slow_calm, *every_second([10], Fate.PAID, 401)], PHASES).seconds_to_normal == 1


def test_storm_is_over_when_the_last_that_came_at_once_was_told_as_paid() -> None:
    burst = [
        Ended(13.0, 100, Fate.PAID, at_once=True),
        Ended(13.0, 500, Fate.ASK_AGAIN, at_once=True),
        Ended(14.5, 500, Fate.PAID, at_once=True),
    ]
    told = in_storm([*burst, *every_second(range(16), Fate.PAID)], PHASES)
    assert (told.at_once, told.attempts, told.seconds_until_paid) == (2, 3, 2)
    assert told.goodput_per_second == (2 + 2) / 2
    assert told.seconds_to_normal == 2


def test_quantile_of_few_is_one_of_them() -> None:
    assert [quantile([3, 1, 2], part) for part in (0.5, 0.99, 1)] == [2, 3, 3]
    assert quantile([], 0.99) == 0


def test_void_is_a_run_that_the_books_do_not_bear_out() -> None:
    hold_against_books(wins=100, told_paid=90, transfers=90)
    hold_against_books(wins=100, told_paid=90, transfers=100)
    with pytest.raises(VoidRunError, match="89 are in the books"):
        hold_against_books(wins=100, told_paid=90, transfers=89)
    with pytest.raises(VoidRunError, match="101 are in the books"):
        hold_against_books(wins=100, told_paid=90, transfers=101)


def test_three_times_the_peak_is_offered() -> None:
    phases = phases_at(4_000)
    assert [phase.name for phase in phases] == [CALM, SURGE, CALM_AGAIN, STORM]
    assert [phase.per_second for phase in phases] == [2_000, 12_000, 2_000, 2_000]
    assert [phase.at_once for phase in phases] == [0, 0, 0, 12_000]
