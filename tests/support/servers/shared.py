"""One set of servers for all processes of a test run, each with a Redis database of its own.

The process that needs servers first starts them, leaves their address in a directory that all processes of
the run know, and ends them when no process holds them any more. It and all others reach them by the address
alone, so no test can stop a server under another's feet.
"""

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tests.support.servers import Server, Servers, local, running_servers

POLL_SECONDS: Final = 0.1


class SharedServer(msgspec.Struct, frozen=True):
    """A server that another process of the run may have started; satisfies `Server`."""

    name: str
    url: str
    pid: int
    container: str
    """The container's id; empty where the server is a process of this machine."""

    environment: Mapping[str, str]
    """What the tools of a server need that is a process of this machine."""

    def start(self) -> None:
        raise self._not_for_one_test()

    def stop(self) -> None:
        raise self._not_for_one_test()

    def kill(self) -> None:
        raise self._not_for_one_test()

    def run(self, *command: str) -> str:
        if not self.container:
            return local.run_tool(command, self.environment)
        from tests.support.servers import containers  # noqa: PLC0415  # costs 0.2 s, and is not always needed

        return containers.run_in(self.container, command)

    def _not_for_one_test(self) -> Exception:
        return AssertionError(f"all tests share this {self.name}: mark the test's file with own_servers({self.name!r})")


class Address(msgspec.Struct, frozen=True):
    """How to reach the three servers."""

    rabbitmq: SharedServer
    postgres: SharedServer
    redis: SharedServer

    def servers(self, number: int) -> Servers:
        """Return the servers as one process of the run, of that number, uses them."""
        place = self.redis.url.rpartition("/")[0]
        redis = msgspec.structs.replace(self.redis, url=f"{place}/{number}")
        return Servers(self.rabbitmq, self.postgres, redis)


@contextmanager
def shared_servers(place: Path, number: int) -> Iterator[Servers]:
    """Join the servers of a run, or start them for all; `place` is the run's directory, `number` is the process's."""
    place.mkdir(exist_ok=True)
    written = place / "servers.json"
    with ExitStack() as at_end:
        with _locked(place / "starting.lock"):
            if not written.exists():
                started = at_end.enter_context(running_servers())
                written.write_bytes(msgspec.json.encode(_address(started)))
                at_end.callback(_wait_for_all, place, written)
            address = msgspec.json.decode(written.read_bytes(), type=Address)
            at_end.enter_context(_locked(place / "users.lock", fcntl.LOCK_SH))
        yield address.servers(number)


def _address(servers: Servers) -> Address:
    named = {"rabbitmq": servers.rabbitmq, "postgres": servers.postgres, "redis": servers.redis}
    return Address(**{name: _shared(name, server) for name, server in named.items()})


def _shared(name: str, server: Server) -> SharedServer:
    if isinstance(server, local.LocalServer):
        return SharedServer(name, server.url, server.pid, "", server.environment)
    from tests.support.servers import containers  # noqa: PLC0415

    assert isinstance(server, containers.ContainerServer)
    return SharedServer(name, server.url, server.pid, server.container_id, {})


def _wait_for_all(place: Path, written: Path) -> None:
    """Return when no process uses the servers any more; whichever comes later starts new ones."""
    while True:
        with _locked(place / "starting.lock"), (place / "users.lock").open() as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                written.unlink()
                return
        time.sleep(POLL_SECONDS)


@contextmanager
def _locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[None]:
    """Hold a lock, which ends with this process at the latest."""
    with path.open("a") as file:
        fcntl.flock(file, how)
        yield
