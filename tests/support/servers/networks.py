"""Docker networks of the tests, in which a container that was taken off gets its old address again."""

from typing import Any

import docker

from tests.support.servers.reaper import CONTAINER_LABEL


def make_network(client: docker.DockerClient, name: str, label: str, *, internal: bool) -> Any:
    """Make a network. An internal one leads nowhere else, and takes no part in reaching ports from outside.

    It is made twice because only where the subnet was given can a container have an address of its own.
    """
    labels = {CONTAINER_LABEL: label}
    draft = client.networks.create(name, internal=internal, labels=labels)
    draft.reload()
    subnet = draft.attrs["IPAM"]["Config"][0]["Subnet"]
    draft.remove()
    pool = docker.types.IPAMPool(subnet=subnet)
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    network = client.networks.create(name, internal=internal, labels=labels, ipam=ipam)
    network.reload()
    return network
