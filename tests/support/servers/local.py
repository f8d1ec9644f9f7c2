"""Servers from this machine's binaries, on loopback, each with its files in a directory of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.servers.reaper import Reaper
from tests.support.servers.server import (
    PASSWORD,
    USER,
    free_ports,
    url_of,
    wait_until_ready,
)

PACKAGES = ("rabbitmq-server", "redis-server", "postgresql")
BINARIES = ("rabbitmq-server", "rabbitmqctl", "epmd", "redis-server", "initdb", "postgres")
POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass
class LocalServer:
    """A server process; satisfies `Server`."""

    name: str
    port: int
    command: tuple[str, ...]
    directory: Path
    reaper: Reaper
    stop_signal: signal.Signals
    kill_signal: signal.Signals
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return url_of(self.name, self.port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Start the process without waiting until it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env=_whole_environment(self.environment),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.reaper.watch_process(self._process.pid, self.kill_signal)

    def wait_until_ready(self) -> None:
        """Wait until it answers; RuntimeError with the end of its log if it never does."""
        process = self._process
        assert process is not None
        wait_until_ready(self.name, self.port, lambda: process.poll() is not None, self._log.read_text)

    def stop(self) -> None:
        self._end(self.stop_signal)

    def kill(self) -> None:
        self._end(self.kill_signal)

    def run(self, *command: str) -> str:
        return run_tool(command, self.environment)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait()
        self.reaper.forget_process(self._process.pid)
        self._process = None

    @property
    def _log(self) -> Path:
        return self.directory / "log.txt"


def run_tool(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a tool that comes with a server, in the server's environment, and return what it prints."""
    return subprocess.run(
        [binary(command[0]), *command[1:]],
        env=_whole_environment(environment),
        check=True,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ).stdout


def _whole_environment(environment: Mapping[str, str]) -> dict[str, str]:
    return {"PATH": programs_path(), "LC_ALL": "C.UTF-8", **environment}


def maker(directory: Path, reaper: Reaper) -> Callable[[str], LocalServer]:
    """Return what prepares a server by its name."""
    makers = {"rabbitmq": make_rabbitmq, "postgres": make_postgres, "redis": make_redis}
    return lambda name: makers[name](directory, reaper)


_RABBITMQ_SCRIPT = """
epmd -port $ERL_EPMD_PORT &
until epmd -names >/dev/null 2>&1; do sleep 0.02; done
exec rabbitmq-server
"""


def make_rabbitmq(directory: Path, reaper: Reaper) -> LocalServer:
    """Prepare a broker with an Erlang port mapper (epmd) of its own.

    The mapper normally is one daemon for the whole machine, which the first node starts and nobody stops.
    Ours is in the broker's process group, and so ends with it.
    """
    port, distribution_port, mapper_port = free_ports(3)
    home = directory / "rabbitmq"
    home.mkdir()
    (home / "enabled_plugins").write_text("[].")
    (home / "rabbitmq.conf").write_text(
        f"listeners.tcp.default = 127.0.0.1:{port}\ndefault_user = {USER}\ndefault_pass = {PASSWORD}\n",
    )
    on_loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
    environment = {
        "HOME": str(home),  # the Erlang cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_NODENAME": "credits@localhost",
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # not this machine's own broker's
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": on_loopback,
        "RABBITMQ_CTL_ERL_ARGS": on_loopback,
        "RUNNING_UNDER_SYSTEMD": "true",  # the start script becomes the server instead of waiting for it
    }
    return LocalServer(
        name="rabbitmq",
        port=port,
        command=("sh", "-c", _RABBITMQ_SCRIPT),
        directory=home,
        reaper=reaper,
        stop_signal=signal.SIGTERM,
        kill_signal=signal.SIGKILL,
        environment=environment,
    )


def make_postgres(directory: Path, reaper: Reaper) -> LocalServer:
    """Prepare a database cluster. It refuses to run as root, so root runs it as the user `postgres`."""
    home = directory / "postgres"
    home.mkdir()
    if os.geteuid() == 0:
        directory.chmod(0o711)
        shutil.chown(home, "postgres", "postgres")
    password_file = home / "password"
    password_file.write_text(PASSWORD)
    data = str(home / "data")
    options = [
        "--no-sync",
        "--no-locale",
        "--encoding=UTF8",
        "--auth=scram-sha-256",
        f"--pwfile={password_file}",
    ]
    initdb = [*as_owner(), binary("initdb"), "-D", data, "-U", USER, *options]
    done = subprocess.run(initdb, check=False, cwd=home, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise RuntimeError(f"initdb failed:\n{done.stdout[-3000:]}")
    (port,) = free_ports(1)
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": 400,
        "recovery_init_sync_method": "syncfs",  # by file, the hundreds of databases take half a minute
    }
    arguments = [argument for key, value in settings.items() for argument in ("-c", f"{key}={value}")]
    return LocalServer(
        name="postgres",
        port=port,
        command=(*as_owner(), binary("postgres"), "-D", data, *arguments),
        directory=home,
        reaper=reaper,
        stop_signal=signal.SIGINT,  # its 'fast' shutdown
        kill_signal=signal.SIGQUIT,  # its 'immediate' one: no checkpoint, recovery at the next start
    )


def as_owner() -> tuple[str, ...]:
    """Return what begins a command that is to run as PostgreSQL's user."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")


def make_redis(directory: Path, reaper: Reaper) -> LocalServer:
    """Prepare a Redis that keeps nothing on disk: it is a cache."""
    (port,) = free_ports(1)
    home = directory / "redis"
    home.mkdir()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--databases", "64")
    return LocalServer(
        name="redis",
        port=port,
        command=(binary("redis-server"), *options),
        directory=home,
        reaper=reaper,
        stop_signal=signal.SIGTERM,
        kill_signal=signal.SIGKILL,
    )


def unavailable() -> str | None:
    """Return why the binaries are not to be had, or None when they are here or could be installed."""
    if not missing_binaries():
        return None
    if os.geteuid() == 0 and shutil.which("apt-get") and (failure := install_packages(*PACKAGES)):
        return failure
    if missing := missing_binaries():
        return f"this machine lacks {', '.join(missing)} (Debian: apt-get install {' '.join(PACKAGES)})"
    return None


def install_packages(*packages: str) -> str | None:
    """Install Debian's packages; return apt's last words if that fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with services_not_started():
        for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
            done = subprocess.run(
                ["apt-get", "-q", *arguments],
                env=environment,
                check=False,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            if done.returncode:
                return f"apt-get {arguments[0]} failed: {done.stdout.strip().rpartition(chr(10))[2]}"
    return None


@contextlib.contextmanager
def services_not_started() -> Iterator[None]:
    """Keep Debian from starting the services that it installs: the tests start their own."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def missing_binaries() -> list[str]:
    """Return the binaries that are not on this machine."""
    return [name for name in BINARIES if shutil.which(name, path=programs_path()) is None]


def binary(name: str) -> str:
    """Return the path of a server's binary; FileNotFoundError if it is not here."""
    path = shutil.which(name, path=programs_path())
    if path is None:
        raise FileNotFoundError(name)
    return path


def programs_path() -> str:
    """Return the PATH on which the servers' binaries are."""
    # Debian keeps PostgreSQL's binaries off the PATH, and what it has there for RabbitMQ are wrappers
    # that become another user and forget our settings.
    postgres = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    return os.pathsep.join(["/usr/lib/rabbitmq/bin", *postgres, os.environ.get("PATH", os.defpath), "/usr/sbin"])
