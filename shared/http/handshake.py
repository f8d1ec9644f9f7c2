"""TLS on a port: connections are counted when they are accepted, not when their handshake is done."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final

from uvicorn.server import ServerState

from shared.http.member import MemberProtocol
from shared.http.refusals import Refusal
from shared.http.registry import ConnectionRegistry, Phase

ACCEPTED_PER_TURN: Final = 8
"""Connections that are accepted in one turn of the event loop.

A connection that makes room is closed some turns later: this bounds the files of those that still have to be.
"""

TLS_SHUTDOWN_SECONDS_MAX: Final = 2.0
"""How long a client may take to end TLS, after which its connection is closed without."""

_NO_FILES_SECONDS: Final = 0.1
"""So long nothing is accepted where the process has no file left."""

_SPARE_SECONDS: Final = 5.0
"""The event loop's own bound on a handshake is longer by so much than the registry's, which is logged."""

_Connect = Callable[[], asyncio.Protocol]


class TlsListener:
    """Accepts connections on a listening socket, as an asyncio server does, and has each begin with TLS.

    A server that asyncio makes with TLS tells its protocols of a connection once the handshake is done. Until
    then nothing would bound how many there are.
    """

    def __init__(
        self,
        listening: socket.socket,
        registry: ConnectionRegistry,
        server: ServerState,
        context: ssl.SSLContext,
        connect: _Connect,
    ) -> None:
        """Take the socket, what counts connections, the server's state, a certificate, and what follows."""
        self._listening: Final = listening
        self._registry: Final = registry
        self._server: Final = server
        self._context: Final = context
        self._connect: Final = connect
        self._loop: Final = asyncio.get_running_loop()
        self._is_closed = False
        self._start()

    def close(self) -> None:
        """Accept no more."""
        self._is_closed = True
        self._loop.remove_reader(self._listening)

    async def wait_closed(self) -> None:
        """Return: `close` leaves nothing to wait for."""

    def _start(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_PER_TURN):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._registry.refusals.record(Refusal.FILES, "")
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_NO_FILES_SECONDS, self._start)
                return
            accepted.settimeout(0)
            handshake = TlsHandshake(self._registry, self._server, accepted, str(address[0]))
            handshake.begin(self._context, self._connect)


class TlsHandshake(MemberProtocol):
    """A connection until its TLS handshake is done. Then an HTTP connection takes its place."""

    def __init__(self, registry: ConnectionRegistry, server: ServerState, accepted: socket.socket, client: str) -> None:
        """Take what counts connections, the server's state, and the connection with its client's address."""
        super().__init__(registry, server)
        self._accepted: Final = accepted
        self.endpoints["client"] = client, 0

    def begin(self, context: ssl.SSLContext, connect: _Connect) -> None:
        """Begin the handshake, if there is room; else close the connection: no reply would be understood."""
        if not self._registry.admit(self, Phase.HANDSHAKE):
            self._record(Refusal.CONNECTIONS)
            self._accepted.close()
            return
        self._server.connections.add(self)  # type: ignore[arg-type]  # of its own protocols, uvicorn means
        self._connect = connect
        self._has_begun = False
        self._task = asyncio.get_running_loop().create_task(self._run(context))
        self._task.add_done_callback(self._end)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Put an HTTP connection in the place of this one, within one turn: nobody else can take it."""
        if self._is_ending:
            transport.abort()
            return
        self._leave()
        connection = self._connect()
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def shutdown(self) -> None:
        """End the connection: it has asked for nothing yet."""
        self.expire(None)

    def expire(self, refusal: Refusal | None) -> None:
        """End the connection: its handshake took too long, or it makes room for another."""
        self._is_ending = True
        if refusal is not None:
            self._record(refusal)
        self._task.cancel()

    async def _run(self, context: ssl.SSLContext) -> None:
        self._has_begun = True
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self,
                self._accepted,
                ssl=context,
                ssl_handshake_timeout=self._registry.bounds.head_seconds_max + _SPARE_SECONDS,
                ssl_shutdown_timeout=TLS_SHUTDOWN_SECONDS_MAX,
            )
        except ssl.SSLError:
            self._record(Refusal.HANDSHAKE)
        except OSError:
            pass  # the client hung up

    def _end(self, _task: asyncio.Task[None]) -> None:
        """Let go of a connection that has not been handed over; once begun, its file is the event loop's."""
        if not self._has_begun:
            self._accepted.close()
        self._leave()
