"""A broker of several nodes: whoever loses one goes to the next, and no win is lost or paid twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import NamedTuple
from uuid import uuid4

import pytest

from gateway.ledger_client import rabbit
from gateway.ledger_client.concurrency import ConcurrencyLimit
from gateway.ledger_client.rabbit import RabbitLedgerClient
from gateway.providers.base import Win
from shared.errors import LedgerUnavailable
from shared.queries import FindPlayer
from shared.settings import BrokerSettings
from simulator.history import ReplyMeaning
from simulator.senders import Senders
from tests.faults.cluster import of_workers
from tests.faults.experiment import Fault, run
from tests.faults.injections import BEYOND_WINDOW_SECONDS
from tests.faults.proxy import Proxy, wired
from tests.faults.rig import Rig
from tests.support.servers import Servers, fresh_vhost
from tests.support.servers.cluster import Cluster, running_cluster, why_no_cluster
from tests.support.servers.server import free_ports
from tests.support.system import BROKER_KEY, KEYS, make_topology, running_system
from worker.messaging.dead_letters import list_all

pytestmark = pytest.mark.servers

SWITCHED_WITHIN_SECONDS = 10.0
SILENT_SECONDS = 0.8
SERVED_WITHIN_SECONDS = 40.0
"""By itself RabbitMQ 4.3 takes a minute to give the shards of a lost node to another worker."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if reason := why_no_cluster():
        pytest.skip(reason)
    with running_cluster() as running:
        yield running


async def test_cluster_of_the_files_in_deploy_pays_with_the_accounts_that_these_make(
    servers: Servers, cluster: Cluster
) -> None:
    accounts = {name: cluster.url_of(name) for name in ("gateway", "worker")}
    async with running_system(
        servers,
        {"CREDITS_BROKER__URL": accounts["gateway"]},
        workers=1,
        CREDITS_BROKER__URL=accounts["worker"],
    ) as system:
        await system.add_players(["anna"])
        senders = Senders(system.url, system.providers, [])
        assert await senders.send_one("klas", Win(str(uuid4()), "anna", "session")) is ReplyMeaning.PAID
        senders.close()


@pytest.mark.any_server
async def test_nothing_is_lost_when_a_node_is_gone_that_leads_queues_and_that_workers_use(
    servers: Servers, cluster: Cluster
) -> None:
    async def strike(rig: Rig) -> None:
        await asyncio.to_thread(cluster.nodes[await of_workers(rig)].kill)
        await asyncio.sleep(BEYOND_WINDOW_SECONDS)
        wins = [Win(str(uuid4()), player.player_id, player.session_id) for player in rig.senders.players]
        async with asyncio.timeout(SERVED_WITHIN_SECONDS):
            await asyncio.gather(*(rig.senders.send_one("klas", win) for win in wins))

    trial = await run(replace(servers, rabbitmq=cluster), Fault("gone", strike))
    assert trial.confirmed > 150
    assert trial.holds, trial.complaints


class Paths(NamedTuple):
    """Two ways to one broker, which look like two nodes to its clients."""

    url: str
    wires: tuple[Proxy, Proxy]


@pytest.fixture
async def paths(servers: Servers) -> AsyncIterator[Paths]:
    async with AsyncExitStack() as at_end:
        url = await fresh_vhost(servers)
        one_url, one = await at_end.enter_async_context(wired(url))
        other_url, other = await at_end.enter_async_context(wired(url))
        yield Paths(f"{one_url},{other_url}", (one, other))


async def test_gateway_and_worker_go_to_the_next_node_when_theirs_is_lost(servers: Servers, paths: Paths) -> None:
    async with running_system(servers, workers=1, CREDITS_BROKER__URL=paths.url) as system:
        for lost in paths.wires:
            await lost.cut()
            await system.until_ready()
            (left,) = (wire for wire in paths.wires if wire is not lost)
            assert left.in_use.total() == len(system.processes)
            await lost.mend()


async def ask(client: RabbitLedgerClient) -> str:
    """Ask what nobody answers, for no worker is there; return why there is no answer."""
    deadline = asyncio.get_running_loop().time() + 0.2
    with pytest.raises(LedgerUnavailable) as unavailable:
        await client.call(FindPlayer("anyone"), deadline)
    return str(unavailable.value)


async def test_gateway_leaves_a_node_that_confirms_nothing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rabbit, "UNCONFIRMED_SECONDS_MAX", SILENT_SECONDS)
    await make_topology(paths.url.partition(",")[0])
    async with RabbitLedgerClient(BrokerSettings(url=paths.url), KEYS, ConcurrencyLimit(10)) as client:
        async with asyncio.timeout(SWITCHED_WITHIN_SECONDS):
            while await ask(client) != "no answer in time":
                await asyncio.sleep(0.02)
        await asyncio.sleep(2 * SILENT_SECONDS)
        (taken,) = (wire for wire in paths.wires if wire.in_use)  # it confirms, and so is stayed with
        (other,) = (wire for wire in paths.wires if not wire.in_use)
        taken.freeze()
        await ask(client)
        async with asyncio.timeout(SWITCHED_WITHIN_SECONDS):
            while not other.in_use or await ask(client) != "no answer in time":
                await asyncio.sleep(0.02)
        await taken.drop_frozen()


async def test_dead_messages_are_looked_at_though_a_node_is_down(servers: Servers) -> None:
    url = await fresh_vhost(servers)
    nowhere = [f"amqp://127.0.0.1:{port}/{url.rpartition('/')[2]}" for port in free_ports(3)]
    settings = BrokerSettings(url=",".join([*nowhere, url]), keys=(BROKER_KEY,))
    assert await list_all(settings) == []
