"""Servers that speak TLS, from this machine's binaries, with an authority of the tests' own."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.servers import Servers, ServersUnavailableError, local
from tests.support.servers.local import LocalServer
from tests.support.servers.reaper import Reaper
from tests.support.servers.server import DATABASE, PASSWORD, USER, free_ports

_DAYS = "1"
REDIS_PASSWORD = "a-password-of-redis"


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority, and the certificate of every server on this machine."""

    directory: Path

    @property
    def certificate(self) -> Path:
        """What clients verify by."""
        return self.directory / "ca.pem"

    @property
    def server_certificate(self) -> Path:
        """Of localhost, alone."""
        return self.directory / "server.pem"

    @property
    def server_key(self) -> Path:
        """The key to it."""
        return self.directory / "server.key"


def make_authority(directory: Path) -> Authority:
    """Make an authority and a certificate for localhost."""
    directory.mkdir()
    authority = Authority(directory)
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    of_server, key = str(authority.server_certificate), str(authority.server_key)
    made_by = ("-CA", str(authority.certificate), "-CAkey", str(directory / "ca.key"))
    _openssl(
        *("req", "-x509", *new_key, "-days", _DAYS, "-subj", "/CN=authority of the tests"),
        *("-keyout", str(directory / "ca.key"), "-out", str(authority.certificate)),
    )
    _openssl(
        *("req", "-x509", *new_key, "-days", _DAYS, "-subj", "/CN=localhost", *made_by),
        *("-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"),
        *("-keyout", key, "-out", of_server),
    )
    return authority


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@dataclass(frozen=True, slots=True)
class TlsServers:
    """The three servers, and the ports on which each speaks TLS."""

    servers: Servers
    ports: Mapping[str, int]

    def broker_url(self, authority: Authority, password: str = PASSWORD) -> str:
        """Return the broker's URL, to be verified by an authority."""
        return f"amqps://{USER}:{password}@localhost:{self.ports['rabbitmq']}/?cafile={authority.certificate}"

    def database_url(self, authority: Authority, database: str = DATABASE, password: str = PASSWORD) -> str:
        """Return the database's URL."""
        options = f"sslmode=verify-full&sslrootcert={authority.certificate}"
        return f"postgresql+asyncpg://{USER}:{password}@localhost:{self.ports['postgres']}/{database}?{options}"

    def cache_url(self, authority: Authority, password: str = REDIS_PASSWORD) -> str:
        """Return the cache's URL."""
        return f"rediss://:{password}@localhost:{self.ports['redis']}/0?ssl_ca_certs={authority.certificate}"


@contextmanager
def running_tls_servers(directory: Path, authority: Authority) -> Iterator[TlsServers]:
    """Start the three servers, each with a second port for TLS but PostgreSQL, which has one for both."""
    if reason := local.unavailable():
        raise ServersUnavailableError(reason)
    directory.mkdir()
    broker_port, cache_port = free_ports(2)
    with Reaper(directory) as reaper, ExitStack() as at_end:
        broker = local.make_rabbitmq(directory, reaper)
        _speak_tls_as_broker(broker, authority, broker_port)
        database = _speak_tls_as_database(local.make_postgres(directory, reaper), authority)
        cache = _speak_tls_as_cache(local.make_redis(directory, reaper), authority, cache_port)
        for server in (broker, database, cache):
            at_end.callback(server.kill)
            server.launch()
        for server in (broker, database, cache):
            server.wait_until_ready()
        # Only now, because what asks whether it is ready has no password.
        cache.run("redis-cli", "-p", str(cache.port), "CONFIG", "SET", "requirepass", REDIS_PASSWORD)
        ports = {"rabbitmq": broker_port, "postgres": database.port, "redis": cache_port}
        yield TlsServers(Servers(broker, database, cache), ports)


def _speak_tls_as_broker(broker: LocalServer, authority: Authority, port: int) -> None:
    with (broker.directory / "rabbitmq.conf").open("a") as settings:
        settings.write(
            f"listeners.ssl.default = 127.0.0.1:{port}\n"
            f"ssl_options.cacertfile = {authority.certificate}\n"
            f"ssl_options.certfile = {authority.server_certificate}\n"
            f"ssl_options.keyfile = {authority.server_key}\n"
        )


def _speak_tls_as_database(database: LocalServer, authority: Authority) -> LocalServer:
    for source in (authority.server_certificate, authority.server_key):
        copy = database.directory / source.name
        shutil.copyfile(source, copy)
        copy.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(copy, "postgres", "postgres")
    settings = {
        "ssl": "on",
        "ssl_cert_file": str(database.directory / authority.server_certificate.name),
        "ssl_key_file": str(database.directory / authority.server_key.name),
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return replace(database, command=(*database.command, *options))


def _speak_tls_as_cache(cache: LocalServer, authority: Authority, port: int) -> LocalServer:
    options = {
        "--tls-port": str(port),
        "--tls-ca-cert-file": str(authority.certificate),
        "--tls-cert-file": str(authority.server_certificate),
        "--tls-key-file": str(authority.server_key),
        "--tls-auth-clients": "no",
    }
    return replace(cache, command=(*cache.command, *(word for pair in options.items() for word in pair)))
