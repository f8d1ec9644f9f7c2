"""PostgreSQL on three machines, with Patroni and etcd on each, and one more with HAProxy and PgBouncer.

Each machine is a container with the files of deploy/postgresql/. A machine of the database has its member of
etcd with it, so that whoever loses it loses both, as in an installation of three machines. The machines talk
to one another over a network of their own. Clients, HAProxy among them, reach them over a second one, and so
a primary that is cut off from the others is still reached.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from ipaddress import ip_network
from tarfile import TarFile, TarInfo
from typing import Any, Final

import docker

from tests.support.paths import DEPLOY, ROOT
from tests.support.servers.containers import connect, reaped_docker
from tests.support.servers.networks import make_network
from tests.support.servers.reaper import CONTAINER_LABEL
from tests.support.servers.server import (
    PASSWORD,
    PROBES,
    USER,
    ServersUnavailableError,
    answers,
    free_ports,
    url_of,
)

FILES: Final = DEPLOY / "postgresql"
IMAGES: Final = ROOT / "tests" / "support" / "images"
IMAGE: Final = "credits-test/replicated:17"
HOSTS: Final = ("postgres1", "postgres2", "postgres3")
WHOLE_WITHIN_SECONDS: Final = 120.0
POLL_SECONDS: Final = 0.2
FIRST_ADDRESS: Final = 10
BUILD_SECONDS_MAX: Final = 900

_LEADER: Final = "Leader"
_CONFIRMS: Final = frozenset({"Quorum Standby", "Sync Standby"})


@dataclass(frozen=True, slots=True)
class Machine:
    """One container; satisfies `Server`."""

    name: str
    port: int
    container: Any

    @property
    def url(self) -> str:
        return url_of("postgres", self.port)

    @property
    def pid(self) -> int:
        self.container.reload()
        return int(self.container.attrs["State"]["Pid"])

    @property
    def is_running(self) -> bool:
        self.container.reload()
        return str(self.container.status) == "running"

    def start(self) -> None:
        self.container.start()

    def stop(self) -> None:
        self.container.stop(timeout=30)

    def kill(self) -> None:
        if self.is_running:
            self.container.kill()

    def run(self, *command: str) -> str:
        code, output = self.container.exec_run(list(command), user="postgres")
        text = output.decode(errors="replace")
        if code:
            raise RuntimeError(f"{command[0]} on {self.name} failed:\n{text}")
        return str(text)

    def put(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file."""
        content = text.encode()
        archive = BytesIO()
        with TarFile(fileobj=archive, mode="w") as files:
            info = TarInfo(path.lstrip("/"))
            info.size, info.mode = len(content), mode
            files.addfile(info, BytesIO(content))
        self.container.put_archive("/", archive.getvalue())


class Replicated:
    """The machines together, to whom takes them for one `Server`, and each by itself."""

    def __init__(self, client: docker.DockerClient, label: str) -> None:
        """Make the containers. They and their networks carry `label`."""
        self._client: Final = client
        self._label: Final = label
        self._inner: Final = make_network(client, label, label, internal=True)
        self._outer: Final = make_network(client, f"{label}-clients", label, internal=False)
        self.nodes: Final = {host: self._make_node(host) for host in HOSTS}
        self.proxy: Final = self._make_proxy()

    @property
    def url(self) -> str:
        """HAProxy's, which leads to the primary."""
        return self.proxy.url

    @property
    def pooled_port(self) -> int:
        """Where PgBouncer listens, which leads to HAProxy."""
        self.proxy.container.reload()
        return int(self.proxy.container.attrs["HostConfig"]["PortBindings"]["6432/tcp"][0]["HostPort"])

    @property
    def pid(self) -> int:
        """The proxy's: the machines have none in common."""
        return self.proxy.pid

    def launch(self) -> None:
        """Start every machine, without waiting until they answer."""
        for machine in (*self.nodes.values(), self.proxy):
            machine.start()

    def start(self) -> None:
        """Start every machine that has ended."""
        self.launch()
        self.wait_until_whole()

    def stop(self) -> None:
        """Let every machine shut down in good order."""
        for machine in (self.proxy, *self.nodes.values()):
            machine.stop()

    def kill(self) -> None:
        """Let every machine crash."""
        for machine in (self.proxy, *self.nodes.values()):
            machine.kill()

    def run(self, *command: str) -> str:
        """Run a tool on a machine of the database that runs."""
        return next(node for node in self.nodes.values() if node.is_running).run(*command)

    def wait_until_whole(self, *, replicated: bool = True) -> None:
        """Wait until one leads, the others follow and confirm its commits, and the proxy leads to it.

        `replicated` is false where no commit waits for them. RuntimeError if that never comes.
        """
        deadline = time.monotonic() + WHOLE_WITHIN_SECONDS
        while not self._is_whole(replicated):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the machines are not one database: {self.members()}\n{self._logs()}")
            time.sleep(POLL_SECONDS)

    def _is_whole(self, replicated: bool) -> bool:  # noqa: FBT001
        members = self.members()
        following = [m for m in members if m["Role"] != _LEADER and m["State"] == "streaming"]
        confirming = [m for m in following if m["Role"] in _CONFIRMS]
        return (
            [m["State"] for m in members if m["Role"] == _LEADER] == ["running"]
            and len(following) == len(HOSTS) - 1
            and len(confirming) == (len(HOSTS) - 1 if replicated else 0)
            and answers(self.proxy.port, PROBES["postgres"])
        )

    def members(self) -> list[dict[str, Any]]:
        """Return what Patroni says of the machines; nothing where etcd does not answer."""
        for node in self.nodes.values():
            with suppress(RuntimeError, ValueError, docker.errors.APIError):  # it may have just ended
                listed: list[dict[str, Any]] = json.loads(node.run("timeout", "5", *_CTL, "list", "-f", "json"))
                return listed
        return []

    def leader(self) -> str | None:
        """Return the machine that is the primary, if Patroni knows one that runs."""
        named = (m["Member"] for m in self.members() if m["Role"] == _LEADER and m["State"] == "running")
        return next(named, None)

    def configure(self, **settings: str) -> None:
        """Change Patroni's settings on all machines."""
        changes = (part for name, value in settings.items() for part in ("--set", f"{name}={value}"))
        self.run(*_CTL, "edit-config", "--force", *changes)

    def cut_off(self, name: str) -> None:
        """Take a machine's wire to the others away, without a word to either."""
        self._inner.disconnect(self.nodes[name].container)

    def heal(self, name: str) -> None:
        """Give a machine its wire to the others back, and its address on it."""
        self._inner.connect(self.nodes[name].container, ipv4_address=_address(self._inner, name))

    def _make_node(self, host: str) -> Machine:
        environment = {
            **_environment("etcd.env", host),
            **_environment("patroni.env", host),
            "PATRONI_SUPERUSER_USERNAME": USER,
            "PATRONI_SUPERUSER_PASSWORD": PASSWORD,
        }
        node = self._make(host, "replicated-node", environment, self._inner, {5432: free_ports(1)[0]})
        self._inner.connect(node.container, ipv4_address=_address(self._inner, host))
        node.put("/etc/patroni/config.yml", (FILES / "patroni.yml").read_text())
        return node

    def _make_proxy(self) -> Machine:
        first, second = free_ports(2)
        proxy = self._make("proxy", "replicated-proxy", {}, self._outer, {5432: first, 6432: second})
        proxy.put("/etc/haproxy/haproxy.cfg", (FILES / "haproxy.cfg").read_text())
        proxy.put("/etc/pgbouncer/pgbouncer.ini", (FILES / "pgbouncer.ini").read_text())
        proxy.put("/etc/pgbouncer/userlist.txt", f'"{USER}" "{PASSWORD}"\n')
        return proxy

    def _make(self, name: str, command: str, environment: dict[str, str], known: Any, ports: dict[int, int]) -> Machine:
        """Make a container that knows the machines of the database by their addresses in one network."""
        endpoint = self._client.api.create_endpoint_config(ipv4_address=_address(self._outer, name))
        container = self._client.containers.create(
            IMAGE,
            command,
            hostname=name,
            environment=environment,
            labels={CONTAINER_LABEL: self._label},
            extra_hosts={host: _address(known, host) for host in HOSTS},
            ports={f"{inner}/tcp": ("127.0.0.1", outer) for inner, outer in ports.items()},
            network=self._outer.name,
            networking_config={self._outer.name: endpoint},
        )
        return Machine(name, ports[5432], container)

    def _logs(self) -> str:
        machines = (*self.nodes.values(), self.proxy)
        return "\n".join(f"{m.name}: {m.container.logs(tail=30).decode(errors='replace')}" for m in machines)


_CTL: Final = ("patronictl", "-c", "/etc/patroni/config.yml")


def _address(network: Any, name: str) -> str:
    subnet = ip_network(network.attrs["IPAM"]["Config"][0]["Subnet"])
    return str(subnet[FIRST_ADDRESS + (HOSTS.index(name) if name in HOSTS else len(HOSTS))])


def _environment(file: str, host: str) -> Mapping[str, str]:
    """Return the variables of a file of deploy/postgresql/, for one machine."""
    lines = (FILES / file).read_text().replace("NODE", host).replace("=PASSWORD", f"={PASSWORD}").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def why_not_replicated() -> str | None:
    """Return why a replicated database is not to be had, or None: it takes containers."""
    if os.environ.get("CREDITS_TEST_SERVERS") == "local":
        return "A replicated database needs containers."
    if (client := connect()) is None:
        return "A replicated database needs containers, and no Docker engine answers."
    client.close()
    return None


@contextmanager
def running_replicated() -> Iterator[Replicated]:
    """Start a replicated database and end it; ServersUnavailableError where it is not to be had."""
    if reason := why_not_replicated():
        raise ServersUnavailableError(reason)
    with reaped_docker() as (client, label):
        _build(client)
        database = Replicated(client, label)
        database.launch()
        database.wait_until_whole()
        yield database


def _build(client: docker.DockerClient) -> None:
    """Build the image, on Debian as tests/support/images/build has made it or else as a registry has it."""
    base = "credits-test/debian:trixie"
    if not client.images.list(base):
        base = "debian:trixie"
    command = ["docker", "build", "-q", "--build-arg", f"BASE={base}", "-t", IMAGE]
    file = IMAGES / "replicated.Dockerfile"
    try:
        subprocess.run(
            [*command, "-f", file, IMAGES],
            check=True,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise ServersUnavailableError(f"Docker cannot build {file.name}: {said[-500:]}") from None
