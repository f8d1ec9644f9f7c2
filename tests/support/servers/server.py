"""What a server is to a test, and what local and container servers have in common: ports and readiness."""

import random
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple, Protocol

USER = PASSWORD = "credits"
DATABASE = "postgres"
READY_WITHIN_SECONDS = 90.0

# Below the ports that the kernel gives to outgoing connections: a stopped server finds its port free again.
PORTS = range(20_000, 32_000)


class ServersUnavailableError(Exception):
    """There are no servers to test on; the message says in one line what to install or to start."""


class Server(Protocol):
    """One server. All calls block: in a coroutine use `await asyncio.to_thread(servers.redis.stop)`."""

    @property
    def url(self) -> str:
        """Where clients connect. The same after every stop and start."""

    @property
    def pid(self) -> int:
        """The process on this machine under which all of its processes are, while it runs."""

    def start(self) -> None:
        """Start it on the data and the port it had, and return when it answers."""

    def stop(self) -> None:
        """Let it shut down in good order."""

    def kill(self) -> None:
        """Let it crash: no shutdown, no checkpoint, no goodbye to its clients."""

    def run(self, *command: str) -> str:
        """Run a tool that comes with the server (`rabbitmqctl`, ...) and return what it prints."""


class LaunchableServer(Server, Protocol):
    """A server whose start is in two steps, so that several can start at once."""

    def launch(self) -> None:
        """Start it for the first time, without waiting until it answers."""

    def wait_until_ready(self) -> None:
        """Return when it answers; RuntimeError with the end of its log if it never does."""


class Probe(NamedTuple):
    """A first message of a protocol, and how the reply of a server begins that is ready for clients."""

    hello: bytes
    reply: bytes


_STARTUP = b"\x00\x03\x00\x00user\x00" + USER.encode() + b"\x00database\x00" + DATABASE.encode() + b"\x00\x00"
REDIS_WITH_ACCOUNTS = "redis with accounts"
"""A Redis, or a sentinel, that answers nobody who has not logged in."""

PROBES = {
    "rabbitmq": Probe(b"AMQP\x00\x00\x09\x01", b"\x01\x00\x00"),
    # 'R' asks for the password; while it recovers, PostgreSQL answers 'E' to the same message.
    "postgres": Probe((len(_STARTUP) + 4).to_bytes(4, "big") + _STARTUP, b"R"),
    "redis": Probe(b"PING\r\n", b"+PONG"),
    REDIS_WITH_ACCOUNTS: Probe(b"PING\r\n", b"-NOAUTH"),
}


def url_of(name: str, port: int) -> str:
    """Return the URL that the product's settings take for the server `name` on a loopback port."""
    return {
        "rabbitmq": f"amqp://{USER}:{PASSWORD}@127.0.0.1:{port}/",
        "postgres": f"postgresql+asyncpg://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}",
        "redis": f"redis://127.0.0.1:{port}/0",
    }[name]


def free_ports(count: int) -> list[int]:
    """Return `count` different loopback ports that nobody listens on."""
    found: list[int] = []
    with ExitStack() as held:
        for port in random.sample(PORTS, len(PORTS)):
            if len(found) == count:
                break
            candidate = held.enter_context(socket.socket())
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found


def answers(port: int, probe: Probe) -> bool:
    """Tell whether the server on `port` is ready for clients."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(probe.hello)
            return connection.recv(64).startswith(probe.reply)
    except OSError:
        return False


def wait_until_ready(name: str, port: int, has_ended: Callable[[], bool], log: Callable[[], str]) -> None:
    """Wait until a server answers; RuntimeError with the end of its log when it ends or stays silent."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while not answers(port, PROBES[name]):
        ended = has_ended()
        if ended or time.monotonic() > deadline:
            fate = "ended while starting" if ended else f"is not ready after {READY_WITHIN_SECONDS:.0f} s"
            raise RuntimeError(f"{name} {fate}; the end of its log:\n{log()[-3000:]}")
        time.sleep(0.05)
