"""Servers in containers, driven by testcontainers."""

import contextlib
import gc
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from tests.support.servers.reaper import CONTAINER_LABEL, Reaper
from tests.support.servers.server import DATABASE, PASSWORD, USER, free_ports, url_of, wait_until_ready

# Read by testcontainers when it is imported. Its own reaper would be a container of one more image.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
os.environ["TESTCONTAINERS_HOST_OVERRIDE"] = "127.0.0.1"

import docker
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

ANSWER_TIMEOUT_SECONDS = 10
PULL_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Image:
    """What to run for a server, and how."""

    image: str
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    command: str | None = None


def images() -> dict[str, Image]:
    """Return the image of each server: the official one, unless the environment names another."""
    return {
        "rabbitmq": Image(
            os.environ.get("CREDITS_TEST_RABBITMQ_IMAGE", "rabbitmq:4-management"),
            5672,
            {"RABBITMQ_DEFAULT_USER": USER, "RABBITMQ_DEFAULT_PASS": PASSWORD},
        ),
        "postgres": Image(
            os.environ.get("CREDITS_TEST_POSTGRES_IMAGE", "postgres:17"),
            5432,
            {"POSTGRES_USER": USER, "POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": DATABASE},
            "postgres -c max_connections=400 -c recovery_init_sync_method=syncfs",
        ),
        "redis": Image(
            os.environ.get("CREDITS_TEST_REDIS_IMAGE", "redis:8"),
            6379,
            command="redis-server --save '' --appendonly no --databases 64",
        ),
    }


@dataclass
class ContainerServer:
    """A server in a container; satisfies `Server`."""

    name: str
    port: int
    container: DockerContainer

    @property
    def url(self) -> str:
        return url_of(self.name, self.port)

    @property
    def pid(self) -> int:
        self.container.reload()
        return int(self.container.get_wrapped_container().attrs["State"]["Pid"])

    def start(self) -> None:
        self.container.get_wrapped_container().start()
        self.wait_until_ready()

    def launch(self) -> None:
        """Create the container and start it without waiting until it answers."""
        self.container.start()

    def wait_until_ready(self) -> None:
        """Wait until it answers; RuntimeError with the end of its log if it never does."""
        wait_until_ready(self.name, self.port, self._has_ended, self._log)

    def stop(self) -> None:
        self.container.get_wrapped_container().stop(timeout=30)

    def kill(self) -> None:
        self.container.reload()
        if self.container.status == "running":
            self.container.get_wrapped_container().kill()

    @property
    def container_id(self) -> str:
        return str(self.container.get_wrapped_container().id)

    def run(self, *command: str) -> str:
        return _run_in(self.container.get_wrapped_container(), command)

    def _has_ended(self) -> bool:
        self.container.reload()
        return self.container.status == "exited"

    def _log(self) -> str:
        out, err = self.container.get_logs()
        return (out + err).decode(errors="replace")


def run_in(container_id: str, command: Sequence[str]) -> str:
    """Run a tool in a container that another process may have made, and return what it prints."""
    with contextlib.closing(DockerClient().client) as client:
        return _run_in(client.containers.get(container_id), command)


def _run_in(container: Any, command: Sequence[str]) -> str:
    code, output = container.exec_run(list(command))
    text = str(output.decode())
    if code:
        raise RuntimeError(f"{command[0]} in {container.name} failed:\n{text}")
    return text


def maker(reaper: Reaper) -> Callable[[str], ContainerServer]:
    """Return what describes a container by the name of its server."""
    reaper.watch_containers()
    return lambda name: make(name, images()[name], reaper.label)


def make(name: str, image: Image, label: str, **more: str) -> ContainerServer:
    """Describe a container whose port on this machine stays the same when it is stopped and started.

    `more` is for Docker: a host name, unless it is that of the server, or a network.
    """
    (port,) = free_ports(1)
    container = DockerContainer(image.image, command=image.command, env=image.environment)
    # The fixed host name is part of RabbitMQ's node name, under which it finds its data again.
    container.with_kwargs(**{"hostname": name, "labels": {CONTAINER_LABEL: label}, **more})
    container.ports[f"{image.port}/tcp"] = ("127.0.0.1", port)  # type: ignore[assignment]  # passed on to Docker as is
    return ContainerServer(name, port, container)


def make_in_network_of_host(name: str, image: str, port: int, run: str, label: str) -> ContainerServer:
    """Describe a container that listens on a port of this machine itself, and runs a line of a shell."""
    container = DockerContainer(images()[image].image).with_command(["sh", "-c", run])
    container.with_kwargs(network_mode="host", labels={CONTAINER_LABEL: label})
    return ContainerServer(name, port, container)


def unavailable() -> str | None:
    """Return why containers are not to be had, or None when the engine answers and has or gets the images."""
    client = connect()
    if client is None:
        return "no Docker engine answers"
    with contextlib.closing(client):
        for image in images().values():
            if not is_present(client, image.image) and not pull(client, image.image):
                return f"Docker cannot get the image {image.image}"
    return None


@contextlib.contextmanager
def reaped_docker() -> Iterator[tuple[docker.DockerClient, str]]:
    """Yield a client of Docker, and the label of containers and networks that are to end with the tests."""
    directory = Path(mkdtemp(prefix="credits-test-"))
    with Reaper(directory) as reaper, contextlib.closing(DockerClient().client) as client:
        reaper.watch_containers()
        yield client, reaper.label


def connect() -> docker.DockerClient | None:
    """Return a client of the Docker engine, or None if no engine answers."""
    with warnings.catch_warnings():
        # The client leaves the socket open on which nobody answered: let that be collected unheard.
        warnings.simplefilter("ignore", ResourceWarning)
        with contextlib.suppress(docker.errors.DockerException):
            return DockerClient(timeout=ANSWER_TIMEOUT_SECONDS).client
        gc.collect()
    return None


def is_present(client: docker.DockerClient, image: str) -> bool:
    """Tell whether the engine has an image already."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(image)
        return True
    return False


def pull(client: docker.DockerClient, image: str) -> bool:
    """Pull an image; false if its registry does not answer soon or does not have it."""
    try:
        client.api.timeout = ANSWER_TIMEOUT_SECONDS
        client.images.get_registry_data(image)
        client.api.timeout = PULL_TIMEOUT_SECONDS
        client.images.pull(image)
    except (docker.errors.APIError, OSError):
        return False
    return True
