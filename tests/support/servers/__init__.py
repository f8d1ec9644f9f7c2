"""Real RabbitMQ, PostgreSQL and Redis for the tests, on free loopback ports, gone when the tests are gone.

`CREDITS_TEST_SERVERS` says where from:

- `docker`: containers, by testcontainers; images are overridden by `CREDITS_TEST_RABBITMQ_IMAGE`,
  `CREDITS_TEST_POSTGRES_IMAGE` and `CREDITS_TEST_REDIS_IMAGE`;
- `local`: this machine's binaries, which root on Debian has installed if they are missing;
- `auto` (default): `docker` where an engine answers and the images are to be had, else `local`.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

import asyncpg

from shared.broker_url import node_urls
from tests.support.servers import local
from tests.support.servers.reaper import Reaper
from tests.support.servers.server import USER, LaunchableServer, Server, ServersUnavailableError

__all__ = [
    "NAMES",
    "Server",
    "Servers",
    "ServersUnavailableError",
    "drop_database",
    "fresh_database",
    "fresh_vhost",
    "own_servers",
    "running_servers",
]


@dataclass(frozen=True, slots=True)
class Servers:
    """The three servers. Tests that must not see one another's data take a fresh database and vhost."""

    rabbitmq: Server
    postgres: Server
    redis: Server

    @property
    def broker_url(self) -> str:
        """The default virtual host, which all tests share."""
        return self.rabbitmq.url

    @property
    def database_url(self) -> str:
        """The maintenance database, in SQLAlchemy's form, for asyncpg."""
        return self.postgres.url

    @property
    def cache_url(self) -> str:
        """Redis' database 0."""
        return self.redis.url


async def fresh_database(servers: Servers, like: str = "template1") -> str:
    """Create an empty database, or a copy of one, and return its URL, in SQLAlchemy's form, for asyncpg."""
    name = f"test_{uuid4().hex}"
    await _execute(servers, f"CREATE DATABASE {name} TEMPLATE {like}")
    return f"{servers.database_url.rpartition('/')[0]}/{name}"


async def drop_database(servers: Servers, database_url: str) -> None:
    """Drop what `fresh_database` made: a checkpoint would write and sync hundreds of files for each."""
    await _execute(servers, f"DROP DATABASE {database_url.rpartition('/')[2]} WITH (FORCE)")


async def _execute(servers: Servers, statement: str) -> None:
    connection = await asyncpg.connect(servers.database_url.replace("+asyncpg", ""))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


VHOSTS_AT_ONCE: Final = 5
"""Each rabbitmqctl takes a second of processor time, whatever it does."""

_vhosts: Final[dict[str, list[str]]] = {}
"""The virtual hosts that nobody has taken yet, by the broker."""

_MAKE_VHOSTS: Final = """
[begin
    ok = rabbit_vhost:add(Name, <<"{user}">>),
    ok = rabbit_auth_backend_internal:set_permissions(
        <<"{user}">>, Name, <<".*">>, <<".*">>, <<".*">>, <<"{user}">>)
end || Name <- [{names}]].
"""


async def fresh_vhost(servers: Servers) -> str:
    """Create an empty virtual host on the broker and return its URL, of a cluster every node's."""
    waiting = _vhosts.setdefault(servers.broker_url, [])
    if not waiting:
        waiting.extend(f"test_{uuid4().hex}" for _ in range(VHOSTS_AT_ONCE))
        names = ", ".join(f'<<"{name}">>' for name in waiting)
        code = _MAKE_VHOSTS.format(user=USER, names=names)
        await asyncio.to_thread(servers.rabbitmq.run, "rabbitmqctl", "--quiet", "eval", code)
    name = waiting.pop()
    return ",".join(f"{url}{name}" for url in node_urls(servers.broker_url))


NAMES: Final = ("rabbitmq", "postgres", "redis")
"""In the order of their starts, the slowest first: each is prepared while the one before starts."""

_Make = Callable[[str], LaunchableServer]


@contextmanager
def running_servers() -> Iterator[Servers]:
    """Start the three servers together and end them; ServersUnavailableError where there are none."""
    with _making() as make, ExitStack() as at_end:
        started = []
        for name in NAMES:
            server = make(name)
            at_end.callback(server.kill)
            server.launch()
            started.append(server)
        for server in started:
            server.wait_until_ready()
        yield Servers(*started)


@contextmanager
def own_servers() -> Iterator[Callable[[str], Server]]:
    """Yield what starts one server, by its name, when it is wanted first; end those that were started."""
    with _making() as make, ExitStack() as at_end:

        @cache
        def start(name: str) -> Server:
            server = make(name)
            at_end.callback(server.kill)
            server.launch()
            server.wait_until_ready()
            return server

        yield start


@contextmanager
def _making() -> Iterator[_Make]:
    directory = Path(tempfile.mkdtemp(prefix="credits-test-"))
    with Reaper(directory) as reaper:
        yield _maker(directory, reaper)


def _maker(directory: Path, reaper: Reaper) -> _Make:
    choice = os.environ.get("CREDITS_TEST_SERVERS", "auto")
    if choice not in {"auto", "docker", "local"}:
        raise ServersUnavailableError(f"CREDITS_TEST_SERVERS is auto, docker or local, not {choice!r}")
    reasons = []
    if choice != "local":
        from tests.support.servers import containers  # noqa: PLC0415  # costs 0.2 s, and is not always needed

        if not (reason := containers.unavailable()):
            return containers.maker(reaper)
        reasons.append(reason)
    if choice != "docker":
        if not (reason := local.unavailable()):
            return local.maker(directory, reaper)
        reasons.append(reason)
    raise ServersUnavailableError(
        f"The tests need RabbitMQ, PostgreSQL and Redis, but {', and '.join(reasons)} (CREDITS_TEST_SERVERS={choice})."
    )
