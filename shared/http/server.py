"""Serving: a port, its bounds, and an end that drains."""

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
from shared.http.door import Door
from shared.http.handshake import TlsListener
from shared.http.listening import BACKLOG, listen
from shared.http.refusals import RefusalLog
from shared.http.registry import ConnectionRegistry
from shared.runtime import tune_gc
from shared.settings_http import HttpBounds

DRAIN_SECONDS_MAX: Final = 15

FILES_OF_CLIENTS: Final = Fraction(3, 4)
"""The part of the files that this process may open that is for connections of its clients."""

FILES_OF_OPERATIONS: Final = Fraction(1, 8)
"""The part that is for a second port of the process, so that clients can't shut its operators out."""


class Server(uvicorn.Server):
    """uvicorn's server on sockets that listen already, with TLS or without; signals may be for another."""

    def __init__(  # noqa: PLR0913  (what one port is)
        self,
        config: uvicorn.Config,
        registry: ConnectionRegistry,
        tls: ssl.SSLContext | None = None,
        when_serving: Callable[[], None] | None = None,
        when_stopping: Callable[[], None] | None = None,
        *,
        heeds_signals: bool = True,
    ) -> None:
        """Take uvicorn's settings, what counts connections, a certificate, and what to call at each end."""
        super().__init__(config)
        self._registry: Final = registry
        self._tls: Final = tls
        self._when_serving: Final = when_serving or (lambda: None)
        self._when_stopping: Final = when_stopping or (lambda: None)
        self._heeds_signals: Final = heeds_signals

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections on the sockets."""
        listeners = [await self._listen(each) for each in sockets or []]
        self.servers = listeners  # type: ignore[assignment]  # of a server, no more is used than ours have
        self.started = True
        self._when_serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell that it ends, then drain."""
        self._when_stopping()
        await super().shutdown(sockets)

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Take SIGTERM and SIGINT, unless another server of this process does."""
        return super().capture_signals() if self._heeds_signals else nullcontext()

    def _connection(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn itself calls it
            config=self.config, server_state=self.server_state, app_state={}
        )

    async def _listen(self, listening: socket.socket) -> asyncio.Server | TlsListener:
        if self._tls is not None:
            return TlsListener(listening, self._registry, self.server_state, self._tls, self._connection)
        return await asyncio.get_running_loop().create_server(self._connection, sock=listening, backlog=BACKLOG)


async def serve(  # noqa: PLR0913  (what one port is)
    app: ASGIApp,
    host: str,
    port: int,
    door: Door | None = None,
    bounds: HttpBounds | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    refusals: RefusalLog | None = None,
    setting: str = "port",
    when_serving: Callable[[], None] | None = None,
    when_stopping: Callable[[], None] | None = None,
    says_whom_it_trusts: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are answered first.

    `door` may answer requests before the application does. `refusals` counts and logs what the bounds refuse.
    `when_serving` is called once connections are taken, `when_stopping` when no new one is taken any more.
    An application that `says_whom_it_trusts` calls `trust_sender`; with any other, a whole request is enough.
    Raises SettingsError, which names `setting`, when the port can't be had.
    """
    sockets = listen(host, port, setting)
    tune_gc()
    allow_connections()
    bounds = below_file_limit(bounds or HttpBounds(), FILES_OF_CLIENTS)
    registry = ConnectionRegistry(bounds, refusals, is_told_of_trust=says_whom_it_trusts)
    server = Server(_config(app, registry, door), registry, tls, when_serving, when_stopping)
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(sign, lambda _sign, _frame: None)
    await server.serve(sockets)
    registry.refusals.flush()


@asynccontextmanager
async def serving(  # noqa: PLR0913  (what one port is)
    app: ASGIApp,
    host: str,
    port: int,
    bounds: HttpBounds | None = None,
    *,
    refusals: RefusalLog | None = None,
    setting: str = "port",
) -> AsyncIterator[None]:
    """Serve beside what is done in the block, until it ends; signals are for whoever serves in it.

    Raises SettingsError, which names `setting`, when the port can't be had.
    """
    registry = ConnectionRegistry(below_file_limit(bounds or HttpBounds(), FILES_OF_OPERATIONS), refusals)
    server = Server(_config(app, registry), registry, heeds_signals=False)
    served = asyncio.create_task(server.serve(listen(host, port, setting)))
    try:
        yield
    finally:
        server.should_exit = True
        await served
        registry.refusals.flush()


def _config(app: ASGIApp, registry: ConnectionRegistry, door: Door | None = None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=partial(Connection, registry, door or Door()),  # type: ignore[arg-type]  # it is called as the class is
        ws="none",
        lifespan="off",  # what the application needs is opened by the caller, where a fault becomes one line
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who the client is, is for the application to say
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )


def allow_connections() -> None:
    """Let this process have as many files, and so connections, as it is allowed to; often 1,024 at first."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def below_file_limit(bounds: HttpBounds, part: Fraction) -> HttpBounds:
    """Return bounds that take no more than a part of the files: where they run out, nobody is accepted."""
    files_max, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files_max == resource.RLIM_INFINITY:
        return bounds
    connections_max = max(1, min(bounds.connections_max, int(files_max * part)))
    return bounds.model_copy(update={"connections_max": connections_max})
