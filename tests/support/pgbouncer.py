"""A PgBouncer of this machine before the tests' PostgreSQL."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from tests.support.servers import Servers, ServersUnavailableError
from tests.support.servers.local import LocalServer, binary, install_packages, programs_path
from tests.support.servers.reaper import Reaper
from tests.support.servers.server import free_ports

PACKAGE = "pgbouncer"

CONFIGURATION = """
[databases]
* = host={postgres.host} port={postgres.port} user={postgres.username} password={postgres.password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {servers_max}
ignore_startup_parameters = {ignored}
"""


@contextmanager
def running_pgbouncer(
    servers: Servers,
    directory: Path,
    mode: str,
    *,
    ignored: str = "extra_float_digits",
    servers_max: int = 20,
) -> Iterator[LocalServer]:
    """Start one in a pool mode, with so many connections to PostgreSQL for each database, and end it."""
    _require_binary()
    (port,) = free_ports(1)
    home = directory / f"pgbouncer-{port}"
    home.mkdir(parents=True)
    configuration = home / "pgbouncer.ini"
    text = CONFIGURATION.format(
        postgres=make_url(servers.database_url),
        port=port,
        mode=mode,
        servers_max=servers_max,
        ignored=ignored,
    )
    configuration.write_text(text)
    command: tuple[str, ...] = (binary(PACKAGE), str(configuration))
    if os.geteuid() == 0:  # as whom it refuses to run
        configuration.chmod(0o600)
        shutil.chown(configuration, "nobody")
        home.chmod(0o711)
        command = (*command[:1], "--user=nobody", *command[1:])
    with Reaper(home) as reaper:
        bouncer = LocalServer(
            name="postgres",  # what its clients take it for
            port=port,
            command=command,
            directory=home,
            reaper=reaper,
            stop_signal=signal.SIGTERM,
            kill_signal=signal.SIGKILL,
        )
        try:
            bouncer.start()
            yield bouncer
        finally:
            bouncer.kill()


def _require_binary() -> None:
    """Have root on Debian install it. Raises ServersUnavailableError."""
    if shutil.which(PACKAGE, path=programs_path()):
        return
    if os.geteuid() == 0 and shutil.which("apt-get") and not install_packages(PACKAGE):
        return
    raise ServersUnavailableError(f"A pooler needs {PACKAGE}: apt-get install {PACKAGE}")
