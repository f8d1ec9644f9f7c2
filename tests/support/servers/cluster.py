"""RabbitMQ on three nodes, each in a container, between which the network can be cut.

They are set up by the files that operators get, in `deploy/rabbitmq`. Nodes talk to one another over a
network of their own. Clients reach each on a loopback port over Docker's usual one, and so a node that is
cut off from the others still hears them.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import docker

from tests.support.paths import DEPLOY
from tests.support.servers.containers import ContainerServer, images, make, reaped_docker, unavailable
from tests.support.servers.networks import make_network
from tests.support.servers.server import READY_WITHIN_SECONDS, ServersUnavailableError

FILES: Final = DEPLOY / "rabbitmq"
CONFIGURATION: Final = ("rabbitmq.conf", "advanced.config")
DEFINITIONS: Final = "definitions.json"
HOSTS: Final = re.findall(
    r"^cluster_formation\..+ = rabbit@(\w+)$", (FILES / "rabbitmq.conf").read_text(), re.MULTILINE
)
"""What the files call the nodes: each finds the others under these names."""

_definitions: Final = json.loads((FILES / DEFINITIONS).read_text())
VHOST: Final[str] = _definitions["vhosts"][0]["name"]
ACCOUNTS: Final[Sequence[str]] = [user["name"] for user in _definitions["users"]]

POLL_SECONDS: Final = 0.2


class Cluster:
    """The nodes together, to whom takes them for one `Server`, and each by itself."""

    def __init__(self, client: docker.DockerClient, label: str) -> None:
        """Describe three nodes. They and their network carry `label`."""
        self._client: Final = client
        self._label: Final = label
        image = images()["rabbitmq"]
        cookie = f"-setcookie {label}"
        environment = {
            **image.environment,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": cookie,
            "RABBITMQ_CTL_ERL_ARGS": cookie,
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/dev/null",  # three management plugins take seconds to start
        }
        image = replace(image, environment=environment)
        self.nodes: Final = {
            f"rabbit@{host}": make("rabbitmq", image, label, hostname=host, network=label) for host in HOSTS
        }
        """By the names that the nodes give themselves."""

    @property
    def url(self) -> str:
        """All nodes, as the product's settings take them."""
        return ",".join(node.url for node in self.nodes.values())

    @property
    def pid(self) -> int:
        """The first node's: they have none in common."""
        return next(iter(self.nodes.values())).pid

    def launch(self) -> None:
        """Make the network and start every node, without waiting until they answer."""
        make_network(self._client, self._label, self._label, internal=True)
        usual = self._client.networks.get("bridge")
        for node in self.nodes.values():
            for name in (*CONFIGURATION, DEFINITIONS):
                node.container.with_copy_into_container((FILES / name).read_bytes(), f"/etc/rabbitmq/{name}")
            node.launch()
            usual.connect(node.container.get_wrapped_container())

    def wait_until_whole(self) -> None:
        """Wait until every node answers, and all run in one cluster; RuntimeError if that never comes."""
        for node in self.nodes.values():
            node.wait_until_ready()
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while not self._is_whole(status := self.status()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the nodes are not one cluster: {status}")
            time.sleep(POLL_SECONDS)

    def define(self) -> None:
        """Make the virtual host and the accounts, as operators do; each account's password is its name."""
        self.run("rabbitmqctl", "--quiet", "import_definitions", f"/etc/rabbitmq/{DEFINITIONS}")
        for account in ACCOUNTS:
            self.run("rabbitmqctl", "--quiet", "change_password", account, account)

    def url_of(self, account: str) -> str:
        """Return all nodes, as the settings of the process take them whose account it is."""
        ports = [node.port for node in self.nodes.values()]
        return ",".join(f"amqp://{account}:{account}@127.0.0.1:{port}/{VHOST}" for port in ports)

    def status(self) -> Mapping[str, Any]:
        """Return what a node that runs says of the cluster."""
        told = self.run("rabbitmqctl", "--quiet", "cluster_status", "--formatter", "json")
        status: Mapping[str, Any] = json.loads(told)
        return status

    def _is_whole(self, status: Mapping[str, Any]) -> bool:
        return set(status["running_nodes"]) == set(self.nodes) and not status["partitions"]

    def start(self) -> None:
        """Start every node that has ended."""
        for node in self.nodes.values():
            node.container.get_wrapped_container().start()
        self.wait_until_whole()

    def stop(self) -> None:
        """Let every node shut down in good order."""
        for node in self.nodes.values():
            node.stop()

    def kill(self) -> None:
        """Let every node crash."""
        for node in self.nodes.values():
            node.kill()

    def run(self, *command: str) -> str:
        """Run a tool on a node that runs."""
        return next(self._up()).run(*command)

    def cut_off(self, name: str) -> str:
        """Take a node's wire to the others away, without a word to either; return its address there."""
        container = self.nodes[name].container.get_wrapped_container()
        container.reload()
        address = str(container.attrs["NetworkSettings"]["Networks"][self._label]["IPAddress"])
        self._network().disconnect(container)
        return address

    def heal(self, name: str, address: str) -> None:
        """Give a node its wire and its address back."""
        self._network().connect(self.nodes[name].container.get_wrapped_container(), ipv4_address=address)

    def _up(self) -> Iterator[ContainerServer]:
        for node in self.nodes.values():
            node.container.reload()
            if node.container.status == "running":
                yield node

    def _network(self) -> Any:
        return self._client.networks.get(self._label)


def why_no_cluster() -> str | None:
    """Return why a cluster is not to be had, or None: it takes containers, unlike the single servers."""
    if os.environ.get("CREDITS_TEST_SERVERS") == "local":
        return "A cluster of RabbitMQ needs containers."
    reason = unavailable()
    return f"A cluster of RabbitMQ needs containers, and {reason}." if reason else None


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Start a cluster and end it; ServersUnavailableError where it is not to be had."""
    if reason := why_no_cluster():
        raise ServersUnavailableError(reason)
    with reaped_docker() as (client, label):
        cluster = Cluster(client, label)
        cluster.launch()
        cluster.wait_until_whole()
        cluster.define()
        yield cluster
