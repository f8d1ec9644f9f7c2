"""A PostgreSQL of its own that archives its log and can be restored, by the very scripts of deploy/backup."""

import io
import os
import shlex
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests.support.paths import DEPLOY
from tests.support.servers import local
from tests.support.servers.reaper import CONTAINER_LABEL, Reaper
from tests.support.servers.server import PASSWORD, USER, LaunchableServer, Server
from tests.support.servers.shared import SharedServer

SCRIPTS: Final = DEPLOY / "backup"
CONTAINER_HOME: Final = "/var/lib/postgresql/data"
"""The volume of the server's image: what is in it outlives the container's stops."""
DEBIAN_PATH: Final = "/usr/bin:/bin"
"""What an operator's shell has on Debian, where pg_ctl and pg_verifybackup are elsewhere."""


@dataclass(frozen=True, slots=True)
class RestorableServer:
    """A server, its base backups and its archive; satisfies `Server`."""

    server: LaunchableServer
    home: str
    """The directory that has the scripts, the archive and the base backups, on the server's machine."""

    data: str
    run_as_owner: Callable[[Sequence[str]], str]
    """Runs a command on the server's machine as its user, whether or not the server runs."""

    path: str | None = DEBIAN_PATH
    """Where the scripts look for programs, if not where the server does."""

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def pid(self) -> int:
        return self.server.pid

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop()

    def kill(self) -> None:
        self.server.kill()

    def run(self, *command: str) -> str:
        return self.server.run(*command)

    def back_up(self) -> str:
        """Make a base backup, and return its directory."""
        return self._script("base-backup", f"{self.home}/base").strip()

    def restore(self, base: str, *target: str, timeline: str = "") -> str:
        """Restore the stopped server to a target; return where its old data are kept."""
        arguments = (base, f"{self.home}/wal", self.data, *target)
        return self._script("restore", *arguments, variables=(f"TIMELINE={timeline}",)).strip()

    def _script(self, name: str, *arguments: str, variables: Sequence[str] = ()) -> str:
        path = () if self.path is None else (f"PATH={self.path}",)
        return self.run_as_owner(("env", *path, *variables, f"{self.home}/{name}", *arguments))


@contextmanager
def running_restorable_server(beside: Server) -> Iterator[RestorableServer]:
    """Start a server of the kind of `beside`: of this machine's binaries, or in a container."""
    directory = Path(tempfile.mkdtemp(prefix="credits-restorable-"))
    with Reaper(directory) as reaper:
        make = _of_this_machine if _is_of_this_machine(beside) else _in_container
        made = make(directory, reaper)
        try:
            made.server.wait_until_ready()
            yield made
        finally:
            made.server.kill()


def _is_of_this_machine(server: Server) -> bool:
    if isinstance(server, SharedServer):
        return not server.container
    return isinstance(server, local.LocalServer)


def _settings(home: str) -> list[str]:
    """Return the settings of deploy/backup as options of `postgres`, with the directories of here."""
    lines = (SCRIPTS / "postgresql.conf").read_text().splitlines()
    pairs = [line.partition(" #")[0].split(" = ", 1) for line in lines if " = " in line and line[0] != "#"]
    settings = {name: value.strip().strip("'") for name, value in pairs}
    command = settings["archive_command"]
    settings["archive_command"] = command.replace("/opt/credits/backup", home).replace("/var/backups/credits", home)
    return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _of_this_machine(directory: Path, reaper: Reaper) -> RestorableServer:
    server = local.make_postgres(directory, reaper)
    home = server.directory
    for script in SCRIPTS.iterdir():
        shutil.copy(script, home)
    for name in ("wal", "base"):
        (home / name).mkdir()
        if os.geteuid() == 0:
            shutil.chown(home / name, "postgres", "postgres")
    server.command = (*server.command, *_settings(str(home)))
    server.launch()
    connection = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": USER, "PGPASSWORD": PASSWORD}

    def run_as_owner(command: Sequence[str]) -> str:
        variables = [f"{name}={value}" for name, value in connection.items()]
        return server.run("env", *variables, *local.as_owner(), *command)

    path = DEBIAN_PATH if Path("/usr/bin/pg_basebackup").exists() else None
    return RestorableServer(server, str(home), str(home / "data"), run_as_owner, path)


def _in_container(_: Path, reaper: Reaper) -> RestorableServer:
    from docker.errors import ContainerError  # noqa: PLC0415  # only where containers are used

    from tests.support.servers import containers  # noqa: PLC0415

    reaper.watch_containers()
    image, data = containers.images()["postgres"], f"{CONTAINER_HOME}/data"
    command = f"{image.command} {shlex.join(_settings(CONTAINER_HOME))}"
    image = replace(image, command=command, environment={**image.environment, "PGDATA": data})
    server = containers.make("postgres", image, reaper.label)

    server.launch()
    _copy_scripts_into(server.container.get_wrapped_container())

    def run_as_owner(command: Sequence[str]) -> str:
        """Run it in a second container on the volumes of the first, which may have stopped."""
        container = server.container.get_wrapped_container()
        container.reload()
        network = {"network_mode": f"container:{container.id}"} if container.status == "running" else {}
        try:
            return bytes(
                container.client.containers.run(
                    image.image,
                    list(command),
                    entrypoint=[],
                    user="postgres",
                    environment={"PGHOST": "127.0.0.1", "PGUSER": USER, "PGPASSWORD": PASSWORD},
                    volumes_from=[container.id],
                    labels={CONTAINER_LABEL: reaper.label},
                    remove=True,
                    **network,
                )
            ).decode()
        except ContainerError as error:
            raise RuntimeError(f"{command[0]} failed:\n{(error.stderr or b'').decode()}") from None

    return RestorableServer(server, CONTAINER_HOME, data, run_as_owner)


def _copy_scripts_into(container: Any) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for script in SCRIPTS.iterdir():
            tar.add(script, script.name)
        for name in ("wal", "base"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o777
            tar.addfile(directory)
    container.put_archive(CONTAINER_HOME, packed.getvalue())
