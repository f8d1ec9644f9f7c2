"""Redis with replicas and sentinels, from the files that operators are given, and a node of a Redis Cluster.

They are processes of this machine, or containers in its network: a sentinel tells clients where a Redis is,
and so each must have the same address for all.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.support.paths import DEPLOY
from tests.support.servers import local
from tests.support.servers.reaper import Reaper
from tests.support.servers.server import (
    READY_WITHIN_SECONDS,
    REDIS_WITH_ACCOUNTS,
    LaunchableServer,
    ServersUnavailableError,
    free_ports,
)

DEPLOYED: Final = DEPLOY / "redis"
PRIMARY_NAME: Final = "mymaster"
WORKER_PASSWORD: Final = "WORKER_PASSWORD"
SENTINEL_PASSWORD: Final = "SENTINEL_PASSWORD"
"""As the files have it."""

DOWN_AFTER_MS: Final = 1_000
POLL_SECONDS: Final = 0.1
CLUSTER_SLOTS: Final = 16_384
GIVEN: Final = "/etc/given.conf"
"""Where a container finds its file, which it copies, since a Redis rewrites it."""

Make = Callable[[int, str, str], LaunchableServer]
"""Describes a Redis by its port, its file, and the options on its command line."""


@dataclass(frozen=True, slots=True)
class RedisServers:
    """A primary and its replica, whichever is which, and three sentinels."""

    servers: dict[int, LaunchableServer]
    sentinels: dict[int, LaunchableServer]
    """Each by its port."""

    @property
    def url(self) -> str:
        """What a worker's settings take."""
        return self.url_with(WORKER_PASSWORD)

    def url_with(self, sentinel_password: str, name: str = PRIMARY_NAME) -> str:
        """Return a worker's URL with another password for the sentinels, or another name of the primary."""
        places = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        of_sentinels = f"sentinel_username=worker&sentinel_password={sentinel_password}"
        return f"redis+sentinel://worker:{WORKER_PASSWORD}@{places}/{name}/0?{of_sentinels}"

    @property
    def primary(self) -> int:
        """The port of the primary that takes writes; there may be none for a while."""
        ports = [port for port in self.servers if self.info(port, "replication").get("role") == "master"]
        return ports[0] if len(ports) == 1 else 0

    @property
    def is_whole(self) -> bool:
        """Whether every sentinel knows all others, and the replica has what the primary has."""
        known = [self._known_to(port) for port in self.sentinels]
        links = [self.info(port, "replication").get("master_link_status") for port in self.servers]
        return known == [(1, 2)] * 3 and "up" in links

    def info(self, port: int, section: str) -> Mapping[str, Any]:
        """Return what a Redis says of itself, or nothing while it is down."""
        try:
            with _client(port, "sentinel", SENTINEL_PASSWORD) as redis:
                told: dict[str, Any] = redis.info(section)
                return told
        except RedisError:
            return {}

    def keys(self, port: int) -> int:
        """Return how many keys a Redis has; none while it is down."""
        database: dict[str, int] = self.info(port, "keyspace").get("db0", {})
        return database.get("keys", 0)

    def _known_to(self, port: int) -> tuple[int, int]:
        """Return how many replicas and other sentinels a sentinel knows."""
        try:
            with _client(port, "worker", WORKER_PASSWORD) as one:
                state = one.execute_command("SENTINEL MASTER", PRIMARY_NAME)
        except RedisError:
            return 0, 0
        return state["num-slaves"], state["num-other-sentinels"]


@contextmanager
def running_redis_servers() -> Iterator[RedisServers]:
    """Start two Redis servers and three sentinels, and end them."""
    with _making() as make, ExitStack() as at_end:
        first, second, *of_sentinels = free_ports(5)
        conf, sentinel_conf = ((DEPLOYED / name).read_text() for name in ("redis.conf", "sentinel.conf"))
        sentinel_conf = _replace(sentinel_conf, "redis-1 6379", f"127.0.0.1 {first}")
        sentinel_conf = _replace(sentinel_conf, f"{PRIMARY_NAME} 5000", f"{PRIMARY_NAME} {DOWN_AFTER_MS}")
        started = RedisServers(
            {
                first: make(first, conf, ""),
                second: make(second, _replace(conf, "# replicaof redis-1 6379", f"replicaof 127.0.0.1 {first}"), ""),
            },
            {port: make(port, sentinel_conf, "--sentinel") for port in of_sentinels},
        )
        for members in (started.servers, started.sentinels):
            for server in members.values():
                at_end.callback(server.kill)
                server.launch()
            for server in members.values():
                server.wait_until_ready()
        until(lambda: started.is_whole)
        yield started


def _client(port: int, username: str, password: str) -> Redis:
    """Return a client that tries once: redis-py's default goes on for seconds where nobody listens."""
    return Redis(port=port, username=username, password=password, retry=Retry(NoBackoff(), 0))


def _replace(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} in {text}"
    return text.replace(old, new)


@contextmanager
def running_cluster_node() -> Iterator[str]:
    """Start a node of a Redis Cluster that has all slots; yield the URL of a single Redis there."""
    with _making() as make, ExitStack() as at_end:
        port, bus_port = free_ports(2)
        conf = f"cluster-enabled yes\ncluster-port {bus_port}\nrequirepass {WORKER_PASSWORD}\n"
        node = make(port, conf, "")
        at_end.callback(node.kill)
        node.launch()
        node.wait_until_ready()
        with _client(port, "default", WORKER_PASSWORD) as redis:
            redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, CLUSTER_SLOTS - 1)
            until(lambda: b"cluster_state:ok" in redis.execute_command("CLUSTER", "INFO"))
        yield f"redis://:{WORKER_PASSWORD}@127.0.0.1:{port}/0"


def until(holds: Callable[[], bool]) -> None:
    """Return when something holds; AssertionError if it never does."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(POLL_SECONDS)


@contextmanager
def _making() -> Iterator[Make]:
    directory = Path(mkdtemp(prefix="credits-test-"))
    with Reaper(directory) as reaper:
        choice = os.environ.get("CREDITS_TEST_SERVERS", "auto")
        if choice != "local":
            from tests.support.servers import containers  # noqa: PLC0415  # costs 0.2 s, and is not always needed

            if not (reason := containers.unavailable()):
                yield lambda port, conf, options: _container(reaper, port, conf, options)
                return
            if choice == "docker":
                raise ServersUnavailableError(reason)
        if reason := local.unavailable():
            raise ServersUnavailableError(reason)
        yield lambda port, conf, options: _process(directory, reaper, port, conf, options)


def _process(directory: Path, reaper: Reaper, port: int, conf: str, options: str) -> LaunchableServer:
    home = directory / f"redis-{port}"
    home.mkdir()
    own = home / "own.conf"
    own.write_text(conf)
    where = ("--port", str(port), "--bind", "127.0.0.1")
    return local.LocalServer(
        name=REDIS_WITH_ACCOUNTS,
        port=port,
        command=(local.binary("redis-server"), str(own), *where, *options.split()),
        directory=home,
        reaper=reaper,
        stop_signal=signal.SIGTERM,
        kill_signal=signal.SIGKILL,
    )


def _container(reaper: Reaper, port: int, conf: str, options: str) -> LaunchableServer:
    from tests.support.servers import containers  # noqa: PLC0415

    reaper.watch_containers()
    run = f"cp -n {GIVEN} own.conf; exec redis-server ./own.conf --port {port} --bind 127.0.0.1 {options}"
    container = containers.make_in_network_of_host(REDIS_WITH_ACCOUNTS, "redis", port, run, reaper.label)
    container.container.with_copy_into_container(conf.encode(), GIVEN)
    return container
