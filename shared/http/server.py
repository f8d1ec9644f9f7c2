"""Runs an HTTP server on one port, within its bounds, and drains it when it stops."""

import asyncio
import resource
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from fractions import Fraction
from functools import partial
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from shared.http.connection import Connection
from shared.http.handshake import TlsListener
from shared.http.interceptor import Interceptor
from shared.http.listening import BACKLOG, listen
from shared.http.refusals import RefusalLog
from shared.http.registry import ConnectionRegistry
from shared.runtime import tune_gc
from shared.settings_http import HttpBounds

DRAIN_SECONDS_MAX: Final = 15

CLIENT_FILES_SHARE: Final = Fraction(3, 4)
"""The share of this process's file limit that its clients' connections may use."""

OPERATIONS_FILES_SHARE: Final = Fraction(1, 8)
"""The share for a second port of the process, so that clients can't lock operators out of it."""


class Server(uvicorn.Server):
    """uvicorn's server on sockets that listen already, with or without TLS; it handles signals only if it should."""

    def __init__(  # noqa: PLR0913  (all that defines a port)
        self,
        config: uvicorn.Config,
        registry: ConnectionRegistry,
        tls: ssl.SSLContext | None = None,
        when_serving: Callable[[], None] | None = None,
        when_stopping: Callable[[], None] | None = None,
        *,
        handles_signals: bool = True,
    ) -> None:
        """Take uvicorn's configuration, the connection registry, the TLS context and callbacks for start and stop."""
        super().__init__(config)
        self._registry: Final = registry
        self._tls: Final = tls
        self._when_serving: Final = when_serving or (lambda: None)
        self._when_stopping: Final = when_stopping or (lambda: None)
        self._heeds_signals: Final = handles_signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on the sockets."""
        listeners = [await self._open_listener(each) for each in sockets or []]
        self.servers = listeners  # type: ignore[assignment]  # uvicorn uses only what these have, too
        self.started = True
        self._when_serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Call `when_stopping`, then drain."""
        self._when_stopping()
        await super().shutdown(sockets)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Handle SIGTERM and SIGINT, unless another server of this process does."""
        return super().capture_signals() if self._heeds_signals else nullcontext()

    def _connection(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # uvicorn itself calls it so
            config=self.config, server_state=self.server_state, app_state={}
        )

    async def _open_listener(self, listening: socket.socket) -> asyncio.Server | TlsListener:
        if self._tls is not None:
            return TlsListener(listening, self._registry, self.server_state, self._tls, self._connection)
        return await asyncio.get_running_loop().create_server(self._connection, sock=listening, backlog=BACKLOG)


async def serve(  # noqa: PLR0913  (all that defines a port)
    app: ASGIApp,
    host: str,
    port: int,
    interceptor: Interceptor | None = None,
    bounds: HttpBounds | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    refusals: RefusalLog | None = None,
    setting: str = "port",
    when_serving: Callable[[], None] | None = None,
    when_stopping: Callable[[], None] | None = None,
    app_reports_trust: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are answered before it returns.

    `interceptor` may answer requests before the application does. `refusals` counts and logs what the bounds
    refuse. `when_serving` is called once connections are accepted, `when_stopping` once no new one is.
    `app_reports_trust` means that the application calls `trust_sender`; without it, a connection is trusted as
    soon as it has sent a whole request.
    Raises SettingsError, which names `setting`, when the port can't be bound.
    """
    sockets = listen(host, port, setting)
    tune_gc()
    raise_file_limit()
    bounds = below_file_limit(bounds or HttpBounds(), CLIENT_FILES_SHARE)
    registry = ConnectionRegistry(bounds, refusals, app_reports_trust=app_reports_trust)
    server = Server(_config(app, registry, interceptor), registry, tls, when_serving, when_stopping)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(number, lambda _number, _frame: None)
    await server.serve(sockets)
    registry.refusals.flush()


@asynccontextmanager
async def serving(  # noqa: PLR0913  (all that defines a port)
    app: ASGIApp,
    host: str,
    port: int,
    bounds: HttpBounds | None = None,
    *,
    refusals: RefusalLog | None = None,
    setting: str = "port",
) -> AsyncIterator[None]:
    """Serve while the block runs, and leave signals to the process's other server.

    Raises SettingsError, which names `setting`, when the port can't be bound.
    """
    registry = ConnectionRegistry(below_file_limit(bounds or HttpBounds(), OPERATIONS_FILES_SHARE), refusals)
    server = Server(_config(app, registry), registry, handles_signals=False)
    served = asyncio.create_task(server.serve(listen(host, port, setting)))
    try:
        yield
    finally:
        server.should_exit = True
        await served
        registry.refusals.flush()


def _config(app: ASGIApp, registry: ConnectionRegistry, interceptor: Interceptor | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(Connection, registry, interceptor or Interceptor()),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        lifespan="off",  # the caller opens what the application needs, and reports a fault in one line
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # the application finds the client's address itself, see shared.http.clients
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )


def raise_file_limit() -> None:
    """Raise this process's soft limit on open files, often 1,024, to its hard limit: each connection needs one."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))


def below_file_limit(bounds: HttpBounds, share: Fraction) -> HttpBounds:
    """Return bounds whose connections use at most `share` of the file limit: without free files none is accepted."""
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return bounds
    connections_max = max(1, min(bounds.connections_max, int(files_max * share)))
    return bounds.model_copy(update={"connections_max": connections_max})
