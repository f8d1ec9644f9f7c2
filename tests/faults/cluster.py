"""What can be done to a broker of three nodes, and the faults that do it, by name.

Queues are led where they were declared, unless an operator spreads them: at first by one node, which
serves all credits. That is the worst case, and stays so here.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from tests.faults import injections
from tests.faults.experiment import Fault, Strike
from tests.faults.proxy import Proxy
from tests.faults.rig import Rig
from tests.support.servers.cluster import Cluster

DETECTED_SECONDS: Final = 20.0
"""Longer than nodes need to find out that they no longer hear one another: net_ticktime and a quarter."""

NodeOf = Callable[[Rig], Awaitable[str]]


def cluster_of(rig: Rig) -> Cluster:
    """Return the rig's broker, by its nodes."""
    broker = rig.servers.rabbitmq
    assert isinstance(broker, Cluster)
    return broker


async def leading(rig: Rig) -> str:
    """Return the node that leads most queues."""
    listed = await rig.broker("list_queues", "--no-table-headers", "name", "leader")
    leaders = Counter(line.split("\t")[1] for line in listed.splitlines() if line.startswith("credits."))
    return leaders.most_common(1)[0][0]


async def of_gateway(rig: Rig) -> str:
    """Return the node that the gateway is connected to."""
    return _busiest(rig, rig.wires.gateway_broker)


async def of_workers(rig: Rig) -> str:
    """Return the node that most workers are connected to."""
    return _busiest(rig, rig.wires.worker_broker)


def _busiest(rig: Rig, wire: Proxy) -> str:
    names = {node.port: name for name, node in cluster_of(rig).nodes.items()}
    return names[wire.in_use.most_common(1)[0][0]]


def at(node_of: NodeOf, strike_at: Callable[[injections.ServerOf], Strike]) -> Strike:
    """Do to one node what can be done to a server."""

    async def strike(rig: Rig) -> None:
        node = cluster_of(rig).nodes[await node_of(rig)]
        await strike_at(lambda _: node)(rig)
        await asyncio.to_thread(cluster_of(rig).wait_until_whole)

    return strike


def each(strike_at: Callable[[injections.ServerOf], Strike]) -> Strike:
    """Do it to every node in turn, to each when the one before is back."""

    async def strike(rig: Rig) -> None:
        for name in cluster_of(rig).nodes:
            await at(_named(name), strike_at)(rig)

    return strike


def _named(name: str) -> NodeOf:
    async def node_of(_: Rig) -> str:
        return name

    return node_of


def cut_off(node_of: NodeOf) -> Strike:
    """Cut a node from the others, while clients reach it, until both sides have found out."""

    async def strike(rig: Rig) -> None:
        cluster, name = cluster_of(rig), await node_of(rig)
        address = await asyncio.to_thread(cluster.cut_off, name)
        await asyncio.sleep(DETECTED_SECONDS)
        await asyncio.to_thread(cluster.heal, name, address)
        await asyncio.to_thread(cluster.wait_until_whole)

    return strike


def until_taken_for_dead(node: injections.ServerOf) -> Strike:
    """Stop a node until the others have given it up, then restart it: without Khepri only that lets it in."""

    async def strike(rig: Rig) -> None:
        await injections.pause_server(node, DETECTED_SECONDS)(rig)
        await asyncio.sleep(injections.BRIEF_SECONDS)
        await injections.restart_server(node)(rig)

    return strike


_kinds = [
    Fault("a node is killed that leads the queues", at(leading, injections.crash_server)),
    Fault("a node is killed that the gateway is connected to", at(of_gateway, injections.crash_server)),
    Fault("a node is killed that workers are connected to", at(of_workers, injections.crash_server)),
    Fault("every node is killed in turn", each(injections.crash_server)),
    Fault("every node is restarted in turn", each(injections.restart_server)),
    Fault(
        "a node that leads the queues stops for longer than anybody waits",
        at(leading, injections.pause_server),
    ),
    Fault("a node stops that the gateway is connected to", at(of_gateway, injections.pause_server)),
    Fault("a node stops until the others take it for dead", at(leading, until_taken_for_dead)),
    Fault("a node that leads the queues is cut from the others", cut_off(leading)),
    Fault("a node that the gateway is connected to is cut from the others", cut_off(of_gateway)),
]
FAULTS: Final[Mapping[str, Fault]] = {fault.name: fault for fault in _kinds}
"""By name."""
