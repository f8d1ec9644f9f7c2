"""Nothing outlives the tests: a child process that ends the servers when their owner is gone, in any way.

The owner (pytest) holds the writing end of a pipe to it. When that end closes, because the owner closed it or
was killed, the reaper ends every process and container that it was told of, and removes their directory.
It runs in a session of its own, so that a Ctrl-C in the terminal does not reach it.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

CONTAINER_LABEL = "credits-test"
GRACE_SECONDS = 10.0
# The owner may have been killed while it waited for the engine to create a container: look twice.
CONTAINER_ROUNDS_SECONDS = (0, 0.5)


class Reaper:
    """The owner's handle on its reaper: `with Reaper(directory) as reaper`."""

    def __init__(self, directory: Path) -> None:
        """Start a reaper that will remove `directory`, and the containers that carry its name as label."""
        self.label = directory.name
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(directory)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def watch_process(self, pid: int, end_signal: signal.Signals) -> None:
        """End the process group `pid` with `end_signal` when the owner is gone."""
        self._tell(f"process {pid} {end_signal.value}")

    def forget_process(self, pid: int) -> None:
        """Leave `pid` alone from now on: it ended, and the number may be given to somebody else."""
        self._tell(f"forget {pid}")

    def watch_containers(self) -> None:
        """Remove containers and networks labelled `CONTAINER_LABEL=self.label` when the owner is gone."""
        self._tell("containers")

    def _tell(self, line: str) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        pipe.write(line.encode() + b"\n")
        pipe.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        pipe.close()
        self._process.wait()


def main(directory: Path) -> None:
    """Read what to watch until the owner's end of the pipe closes, then end it all."""
    processes: dict[int, int] = {}
    containers = False
    for line in sys.stdin:
        match line.split():
            case ["process", pid, end_signal]:
                processes[int(pid)] = int(end_signal)
            case ["forget", pid]:
                processes.pop(int(pid), None)
            case ["containers"]:
                containers = True
    end_processes(processes)
    if containers:
        remove_containers(directory.name)
    shutil.rmtree(directory, ignore_errors=True)


def end_processes(processes: dict[int, int]) -> None:
    """Signal every process group, wait for them together, and kill those that are still there."""
    groups = [pid for pid, end_signal in processes.items() if signal_group(pid, end_signal)]
    deadline = time.monotonic() + GRACE_SECONDS
    while groups and time.monotonic() < deadline:
        time.sleep(0.02)
        groups = [pid for pid in groups if signal_group(pid, 0)]
    for pid in groups:
        signal_group(pid, signal.SIGKILL)


def signal_group(pid: int, number: int) -> bool:
    """Send a signal to a process group; false if there is none of that number any more."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return False
    return True


def remove_containers(label: str) -> None:
    """Remove the containers of one run, started or not, with their volumes, and their networks."""
    import docker  # noqa: PLC0415  # only where containers were used
    from testcontainers.core.docker_client import DockerClient  # noqa: PLC0415

    client = DockerClient().client
    ours = {"label": f"{CONTAINER_LABEL}={label}"}
    for pause in CONTAINER_ROUNDS_SECONDS:
        time.sleep(pause)
        for container in client.containers.list(all=True, filters=ours):
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True, v=True)
        for network in client.networks.list(filters=ours):
            with contextlib.suppress(docker.errors.APIError):
                network.remove()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
