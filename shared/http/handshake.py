"""TLS listener that counts a connection when it is accepted, not when its handshake is done."""

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
"""The connections accepted in one turn of the event loop.

A connection that is evicted to make room closes some turns later, so this bounds the files that are open
meanwhile.
"""

TLS_SHUTDOWN_SECONDS_MAX: Final = 2.0
"""How long a client may take to close TLS; then its connection is closed without."""

_NO_FILES_SECONDS: Final = 0.1
"""How long nothing is accepted after the process has run out of files."""

_SPARE_SECONDS: Final = 5.0
"""asyncio's own handshake timeout is this much longer than the registry's, so that the registry's is the one that
expires and is logged.
"""

_ConnectionFactory = Callable[[], asyncio.Protocol]


class TlsListener:
    """Accepts connections on a listening socket, as an asyncio server does, and starts each with TLS.

    asyncio's own TLS server creates a protocol only once the handshake is done. Until then nothing would bound
    the number of connections.
    """

    def __init__(
        self,
        listening: socket.socket,
        registry: ConnectionRegistry,
        server: ServerState,
        context: ssl.SSLContext,
        make_connection: _ConnectionFactory,
    ) -> None:
        """Take the socket, the registry, uvicorn's state, the TLS context, and what creates the HTTP connection."""
        self._listening: Final = listening
        self._registry: Final = registry
        self._server: Final = server
        self._context: Final = context
        self._make_connection: Final = make_connection
        self._loop: Final = asyncio.get_running_loop()
        self._is_closed = False
        self._start()

    def close(self) -> None:
        """Accept no more connections."""
        self._is_closed = True
        self._loop.remove_reader(self._listening)

    async def wait_closed(self) -> None:
        """Return at once: `close` leaves nothing to wait for."""

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
            handshake.begin(self._context, self._make_connection)


class TlsHandshake(MemberProtocol):
    """A connection during its TLS handshake. Once that is done, an HTTP connection takes its place."""

    def __init__(self, registry: ConnectionRegistry, server: ServerState, accepted: socket.socket, client: str) -> None:
        """Take the registry, uvicorn's state, and the accepted socket with its client's address."""
        super().__init__(registry, server)
        self._accepted: Final = accepted
        self.endpoints["client"] = client, 0

    def begin(self, context: ssl.SSLContext, make_connection: _ConnectionFactory) -> None:
        """Start the handshake if there is room; otherwise close: before TLS the client could read no reply."""
        if not self._registry.admit(self, Phase.HANDSHAKE):
            self._record(Refusal.CONNECTIONS)
            self._accepted.close()
            return
        self._server.connections.add(self)  # type: ignore[arg-type]  # uvicorn names only its own protocols
        self._make_connection = make_connection
        self._has_begun = False
        self._task = asyncio.get_running_loop().create_task(self._run(context))
        self._task.add_done_callback(self._end)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hand the connection to HTTP within one turn of the event loop, so that no other can take its place."""
        if self._is_ending:
            transport.abort()
            return
        self._leave()
        connection = self._make_connection()
        transport.set_protocol(connection)
        connection.connection_made(transport)

    def shutdown(self) -> None:
        """Close the connection: no request has arrived on it yet."""
        self.expire(None)

    def expire(self, refusal: Refusal | None) -> None:
        """Close the connection, because its handshake took too long or to make room for another."""
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
        """Close the socket unless the handshake has begun, when the event loop owns it; leave the registry."""
        if not self._has_begun:
            self._accepted.close()
        self._leave()
