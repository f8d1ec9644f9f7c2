"""Names of Redis and of sentinels whose lookup hangs: one thread each, and no other name waits for it."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.caches import ONE, cache_on
from tests.support.fake_sentinel import fake_sentinel
from worker.ledger.cache import circuit, sentinels
from worker.ledger.cache.lookups import LookedUpConnection, Lookups

real_getaddrinfo = socket.getaddrinfo


class SlowNames:
    """Lets the lookup of each name that begins with `slow` hang until it is released."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.names: list[str] = []
        self.threads: list[threading.Thread] = []

    def getaddrinfo(self, host: Any, *arguments: Any, **options: Any) -> Any:
        if not str(host).startswith("slow"):
            return real_getaddrinfo(host, *arguments, **options)
        self.names.append(host)
        self.threads.append(threading.current_thread())
        self.released.wait(30)
        return real_getaddrinfo("127.0.0.1", *arguments, **options)


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowNames]:
    slow = SlowNames()
    monkeypatch.setattr(socket, "getaddrinfo", slow.getaddrinfo)
    monkeypatch.setattr(circuit, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(sentinels, "ANSWER_SECONDS_MAX", 0.02)
    yield slow
    slow.released.set()
    for thread in slow.threads:
        thread.join()


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("redis+sentinel://slow1:1,slow2:2,slow3:3/mymaster/0", ["slow1", "slow2", "slow3"]),
        ("redis://slow1:1/0", ["slow1"]),
    ],
)
async def test_name_that_hangs_takes_one_thread_however_often_it_is_needed(
    slow_names: SlowNames, url: str, names: list[str]
) -> None:
    counted: list[str] = []
    async with cache_on(url, count=counted.append, timeout_seconds=0.02) as cache:
        while len(counted) < 10:
            assert await cache.get([ONE]) == {}
            await asyncio.sleep(0.005)
    assert sorted(slow_names.names) == names
    assert all(thread.daemon for thread in slow_names.threads)
    assert not any(thread.name.startswith("asyncio") for thread in slow_names.threads)


async def test_name_is_looked_up_anew_once_the_lookup_that_hung_is_over(slow_names: SlowNames) -> None:
    lookups = Lookups(1)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await lookups.find("slow")
    with pytest.raises(OSError, match="1 names are being looked up already"):
        await lookups.find("another")
    slow_names.released.set()
    assert await lookups.find("slow") == ["127.0.0.1"]
    assert await lookups.find("slow") == ["127.0.0.1"]
    assert slow_names.names == ["slow"] * 2


async def test_addresses_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if host != "several":
            return real_getaddrinfo(host, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 0)) for ip in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with fake_sentinel(("127.0.0.1", 1)) as server:
        connection = LookedUpConnection(host="several", port=server.port, lookups=Lookups(1), driver_info=None)
        await connection.connect()  # type: ignore[no-untyped-call]
        assert connection.getpeername() == "127.0.0.1"
        await connection.disconnect()


async def test_error_of_a_lookup_is_that_of_the_system() -> None:
    with pytest.raises(UnicodeError):
        await Lookups(1).find("x" * 100)
    with pytest.raises(socket.gaierror):
        await Lookups(1).find("no such name")
