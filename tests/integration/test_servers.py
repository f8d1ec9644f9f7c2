"""The servers that all other integration tests stand on."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import aio_pika
import asyncpg
import pytest
import redis.asyncio

from tests.support.paths import ROOT
from tests.support.servers import Server, Servers, fresh_database, fresh_vhost
from tests.support.servers.cluster import why_no_cluster
from tests.support.servers.reaper import CONTAINER_LABEL

pytestmark = [pytest.mark.own_servers("rabbitmq", "postgres", "redis"), pytest.mark.servers]

T = TypeVar("T")
PROC = Path("/proc")


async def test_broker_keeps_a_message_in_a_quorum_queue_with_single_active_consumer(servers: Servers) -> None:
    connection = await aio_pika.connect(await fresh_vhost(servers))
    async with connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "shard.0", durable=True, arguments={"x-queue-type": "quorum", "x-single-active-consumer": True}
        )
        await channel.default_exchange.publish(aio_pika.Message(b"a credit"), "shard.0")
        async with asyncio.timeout(10), queue.iterator() as messages:
            message = await anext(messages)
            await message.ack()
    assert message.body == b"a credit"


async def test_database_survives_a_crash_of_the_machine_because_it_syncs(servers: Servers) -> None:
    connection = await asyncpg.connect(servers.database_url.replace("+asyncpg", ""))
    try:
        settings = [await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
    finally:
        await connection.close()
    assert settings == ["on", "on"]


async def test_fresh_database_is_empty_and_its_own(servers: Servers) -> None:
    first, second = await fresh_database(servers), await fresh_database(servers)
    connection = await asyncpg.connect(first.replace("+asyncpg", ""))
    try:
        tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    assert first != second
    assert tables == 0


async def test_cache_keeps_a_value(servers: Servers) -> None:
    async with redis.asyncio.from_url(servers.cache_url) as client:
        await client.set("key", "value")
        assert await client.get("key") == b"value"


@pytest.mark.parametrize("name", ["redis", "postgres", "rabbitmq"])
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_server_returns_on_its_port_after(servers: Servers, name: str, end: str) -> None:
    server: Server = getattr(servers, name)
    url = server.url
    await asyncio.to_thread(getattr(server, end))
    await asyncio.to_thread(server.start)
    assert server.url == url


async def test_database_keeps_what_was_committed_before_a_kill(servers: Servers) -> None:
    url = (await fresh_database(servers)).replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE paid AS SELECT 1 AS win")
    await asyncio.to_thread(servers.postgres.kill)
    await connection.close(timeout=1)
    await asyncio.to_thread(servers.postgres.start)
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT win FROM paid") == 1
    finally:
        await connection.close()


OWNER = """
from tests.support.servers import running_servers
with running_servers():
    print("ready", flush=True)
    input()
"""


@pytest.mark.parametrize(
    ("moment", "end"),
    [
        ("starting", signal.SIGINT),
        ("starting", signal.SIGTERM),
        ("starting", signal.SIGKILL),
        ("ready", signal.SIGKILL),
    ],
)
def test_nothing_outlives_tests_that_are_ended(moment: str, end: signal.Signals) -> None:
    temporary = Path(tempfile.mkdtemp())
    temporary.chmod(0o711)  # PostgreSQL's user has to get through
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as owner:
        (directory,) = eventually(lambda: list(temporary.iterdir()))
        if moment == "ready":
            assert owner.stdout is not None
            assert owner.stdout.readline() == b"ready\n"
        else:
            time.sleep(1)
        started = descendants(owner.pid)
        owner.send_signal(end)
    assert started
    assert eventually(lambda: not directory.exists()), "the reaper leaves when the directory is gone"
    assert eventually(lambda: not started & set(parents()))
    assert not containers_of(directory.name)
    temporary.rmdir()


OWNER_OF_CLUSTER = """
from tests.support.servers.cluster import running_cluster
with running_cluster():
    input()
"""


@pytest.mark.any_server
def test_nothing_outlives_a_cluster_that_is_ended_while_it_starts() -> None:
    if reason := why_no_cluster():
        pytest.skip(reason)
    temporary = Path(tempfile.mkdtemp())
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OWNER_OF_CLUSTER]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as owner:
        (directory,) = eventually(lambda: list(temporary.iterdir()))
        assert eventually(lambda: len(containers_of(directory.name)) > 1)
        assert networks_of(directory.name)
        owner.kill()
    assert eventually(lambda: not directory.exists())
    assert not containers_of(directory.name)
    assert not networks_of(directory.name)
    temporary.rmdir()


def eventually(look: Callable[[], T]) -> T:
    """Return what `look` finds as soon as that is true, or what it finds after 20 seconds."""
    deadline = time.monotonic() + 20
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def parents() -> dict[int, int]:
    """Return every process with its parent, but not those that ended and only wait to be collected."""
    states = _states_of_proc() if PROC.exists() else _states_of_ps()
    return {int(pid): int(parent) for pid, state, parent in states if not state.startswith("Z")}


def _states_of_proc() -> Iterator[Sequence[str]]:
    for path in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield path.parent.name, *path.read_text().rpartition(")")[2].split()[:2]


def _states_of_ps() -> Iterator[Sequence[str]]:
    """As every Unix has it that has no /proc; a small Linux may have no `ps`."""
    told = subprocess.run(["ps", "-A", "-o", "pid=,state=,ppid="], check=True, text=True, stdout=subprocess.PIPE).stdout
    return (line.split() for line in told.splitlines())


def descendants(pid: int) -> set[int]:
    family = parents()
    found = {pid}
    while more := {child for child, parent in family.items() if parent in found} - found:
        found |= more
    return found - {pid}


def containers_of(label: str) -> list[str]:
    """Return the containers that a run of the servers left behind, where there is an engine at all."""
    return _labelled(label, "ps", "--all")


def networks_of(label: str) -> list[str]:
    """Return the networks that a run of the servers left behind, where there is an engine at all."""
    return _labelled(label, "network", "ls")


def _labelled(label: str, *listing: str) -> list[str]:
    if shutil.which("docker") is None:
        return []
    command = ["docker", *listing, "--quiet", "--filter", f"label={CONTAINER_LABEL}={label}"]
    return subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE).stdout.split()
