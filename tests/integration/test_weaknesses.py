"""Settings of the database by which wins may be lost are logged and counted, also while a worker runs."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.settings import Settings
from tests.servers import Servers
from tests.servers.server import PASSWORD, USER
from tests.support.cluster import Cluster
from worker.bookkeeper import open_bookkeeper
from worker.replication import find_weaknesses


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
    async with open_bookkeeper(settings):
        pass
    receiving = asyncio.create_task(asyncio.to_thread(receive_log, servers, await cluster.value("SHOW port")))
    while not (lines := await logged_at_start(settings)):
        assert not receiving.done()
    assert lines[0]["event"] == "wins can be lost"
    assert lines[0]["reason"].startswith("synchronous_standby_names is empty and there are replicas")
    await cluster.value("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
    await receiving


async def logged_at_start(settings: Settings) -> list[MutableMapping[str, Any]]:
    with structlog.testing.capture_logs() as lines:
        async with open_bookkeeper(settings):
            return lines


def receive_log(servers: Servers, port: object) -> None:
    """Receive the server's log, as a replica does, until the server ends it."""
    url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}"
    receive = f"pg_receivewal -d {url} -D $directory --no-loop --synchronous"
    servers.postgres.run("sh", "-c", f"directory=$(mktemp -d); {receive}; rm -r $directory")
