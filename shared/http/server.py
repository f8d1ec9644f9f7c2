"""Serving: a port, its bounds, and an end that drains."""

import resource
import signal
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import uvicorn
from starlette.types import ASGIApp

from shared.garbage import search_seldom
from shared.http.connection import Connection
from shared.http.door import Door
from shared.http.refusals import RefusalLog
from shared.http.registry import ConnectionRegistry
from shared.settings import HttpBounds

DRAIN_SECONDS_MAX: Final = 15

BACKLOG: Final = 65_535
"""So many connections may wait to be accepted; the kernel allows as many as net.core.somaxconn says."""

FILES_KEPT: Final = 200
"""So many of the files that this process may open are not for connections of clients."""


class Tls(NamedTuple):
    """What a port needs to serve HTTPS."""

    certificate: Path
    """A file with the certificate, and those that link it to its authority's, in PEM."""

    key: Path
    """A file with the certificate's private key, in PEM, unencrypted."""


async def serve(  # noqa: PLR0913, PLR0917  (what one port is)
    app: ASGIApp,
    host: str,
    port: int,
    door: Door | None = None,
    bounds: HttpBounds | None = None,
    tls: Tls | None = None,
    refusals: RefusalLog | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are answered first.

    `door` may answer requests before the application does. `refusals` counts and logs what the bounds refuse.
    """
    search_seldom()
    allow_connections()
    registry = ConnectionRegistry(below_file_limit(bounds or HttpBounds()), refusals)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=partial(Connection, registry, door or Door()),  # type: ignore[arg-type]  # it is called as the class is
        ws="none",
        backlog=BACKLOG,
        lifespan="off",  # what the application needs is opened by the caller, where a fault becomes one line
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client is
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
        ssl_certfile=tls and tls.certificate,
        ssl_keyfile=tls and tls.key,
    )
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(sign, lambda _sign, _frame: None)
    await uvicorn.Server(config).serve()
    registry.refusals.flush()


def allow_connections() -> None:
    """Let this process have as many files, and so connections, as it is allowed to; often 1,024 at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def below_file_limit(bounds: HttpBounds) -> HttpBounds:
    """Return bounds that leave files for the rest of the process: where they run out, nobody is accepted."""
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return bounds
    connections_max = max(1, min(bounds.connections_max, files_max - FILES_KEPT))
    return bounds.model_copy(update={"connections_max": connections_max})
