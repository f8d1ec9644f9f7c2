"""Settings of the database by which wins may be lost are logged and counted, also while a worker runs."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.errors import LedgerUnavailable
from shared.settings import Settings
from tests.support.cluster import UNTIL_SECONDS, Cluster
from tests.support.servers import Servers
from tests.support.servers.server import PASSWORD, USER
from worker.database.replication import find_weaknesses
from worker.ledger.service import open_ledger_service
from worker.ledger.transaction import Ledger
from worker.ledger.weaknesses import Weaknesses
from worker.messaging.metrics import WorkerMetrics

pytestmark = pytest.mark.own_servers("postgres")


@pytest.mark.parametrize(
    ("statement", "weakness"),
    [
        ("SET synchronous_commit = off", "synchronous_commit is off"),
        ("SET synchronous_commit = local", "synchronous_commit is local"),
        ("SET synchronous_commit = remote_apply", None),
    ],
)
async def test_setting_that_loses_wins_is_named(
    cluster: Cluster, postgres: AsyncEngine, statement: str, weakness: str | None
) -> None:
    await cluster.wait_for("nobody")
    async with postgres.connect() as connection:
        await connection.execute(text(statement))
        found = await find_weaknesses(connection)
    assert [each.partition(":")[0] for each in found] == [weakness] * (weakness is not None)


async def test_replica_that_no_commit_waits_for_is_named_at_the_start(
    servers: Servers, cluster: Cluster, postgres: AsyncEngine
) -> None:
    """Whoever receives the log is a replica to the server, and may be made the primary."""
    url = postgres.url.render_as_string(hide_password=False)
    settings = Settings.model_validate({"ledger": {"database_url": url}})
    async with open_ledger_service(settings):
        pass
    receiving = asyncio.create_task(asyncio.to_thread(receive_log, servers, await cluster.value("SHOW port")))
    while not (lines := await logged_at_start(settings)):
        assert not receiving.done()
    assert lines[0]["event"] == "wins can be lost"
    assert lines[0]["reason"].startswith("synchronous_standby_names is empty and there is a replica or an archiver")
    await cluster.value("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    await receiving


async def test_weakness_that_comes_and_goes_while_a_worker_runs_is_logged_and_counted(
    servers: Servers, cluster: Cluster, postgres: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.ledger.weaknesses.CHECK_INTERVAL_SECONDS", 0.05)
    url, metrics = postgres.url.render_as_string(hide_password=False), WorkerMetrics()
    settings = Settings.model_validate({"ledger": {"database_url": url}})

    def number() -> float | None:
        return metrics.registry.get_sample_value("credits_worker_ledger_weaknesses")

    with structlog.testing.capture_logs() as lines:
        async with (
            asyncio.timeout(UNTIL_SECONDS),
            open_ledger_service(settings, tell_weaknesses=metrics.ledger_weaknesses.set),
        ):
            assert (number(), lines) == (0, [])
            port = await cluster.value("SHOW port")
            receiving = asyncio.create_task(asyncio.to_thread(receive_log, servers, port))
            while not number():
                await asyncio.sleep(0.02)
            await cluster.value("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
            await receiving
            while number():
                await asyncio.sleep(0.02)
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "wins can be lost"),
        ("info", "wins can no longer be lost so"),
    ]
    assert lines[0]["reason"] == lines[1]["reason"]


async def test_look_that_fails_is_followed_by_others(postgres: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.ledger.weaknesses.CHECK_INTERVAL_SECONDS", 0.01)
    looked = asyncio.Event()
    faults: list[Exception] = [LedgerUnavailable("away"), ValueError("a defect of ours")]

    class Failing(Ledger):
        async def find_weaknesses(self) -> list[str]:
            if faults:
                raise faults.pop()
            looked.set()
            return await super().find_weaknesses()

    async with asyncio.timeout(UNTIL_SECONDS), Weaknesses(Failing(postgres)).watched():
        await looked.wait()


async def test_base_backup_is_no_replica(servers: Servers, cluster: Cluster, postgres: AsyncEngine) -> None:
    port = await cluster.value("SHOW port")
    backing_up = asyncio.create_task(asyncio.to_thread(back_up_slowly, servers, port))
    async with asyncio.timeout(UNTIL_SECONDS):
        while not await cluster.value("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'backup'"):
            assert not backing_up.done()
            await asyncio.sleep(0.02)
    async with postgres.connect() as connection:
        found = await find_weaknesses(connection)
    await cluster.value("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    await backing_up
    assert found == []


async def logged_at_start(settings: Settings) -> list[MutableMapping[str, Any]]:
    with structlog.testing.capture_logs() as lines:
        async with open_ledger_service(settings):
            return lines


def receive_log(servers: Servers, port: object) -> None:
    """Receive the server's log, as a replica does, until the server ends it."""
    url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}"
    receive = f"pg_receivewal -d {url} -D $directory --no-loop --synchronous"
    servers.postgres.run("sh", "-c", f"directory=$(mktemp -d); {receive}; rm -r $directory")


def back_up_slowly(servers: Servers, port: object) -> None:
    """Copy the server, for minutes, until the server ends it.

    Without a second process for the log: in a container it would be left to the server, as the first process
    of all, which takes its end for a crash of one of its own.
    """
    url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}"
    back_up = f"pg_basebackup -d {url} -D $directory -X none -c fast --max-rate=32"
    servers.postgres.run("sh", "-c", f"directory=$(mktemp -d); {back_up}; rm -rf $directory")
