"""The part of a connection that its port's registry counts, and the ways in which it ends."""

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Final

from uvicorn.server import ServerState

from shared.http.exchange import endpoints_of
from shared.http.refusals import REPLIES, Refusal
from shared.http.registry import ConnectionRegistry, Phase

DISCARDED_BYTES_MAX: Final = 1_048_576
"""The bytes that are discarded after the final reply, or of a body after its own; then the connection is reset."""


class MemberProtocol(asyncio.Protocol, ABC):
    """A connection in the registry of its port. uvicorn's server waits for it to end, and calls `shutdown` to drain."""

    def __init__(self, registry: ConnectionRegistry, server: ServerState) -> None:
        """Take the connection registry and uvicorn's server state."""
        self._registry: Final = registry
        self._server: Final = server
        self._is_ending = self._is_reading_paused = False
        self._discarded_bytes = 0
        self.endpoints: dict[str, Any] = {}
        self.phase, self.since, self.held_bytes, self.is_trusted = Phase.HEAD, -1.0, 0, False

    @abstractmethod
    def expire(self, refusal: Refusal | None) -> None:
        """Close the connection, because it has waited too long or to make room for another."""

    @abstractmethod
    def shutdown(self) -> None:
        """Close once every request that has arrived is answered."""

    def _enter(self, transport: asyncio.Transport) -> bool:
        """Register the connection; where there is no room, refuse and close it. Return whether it was admitted."""
        self._transport, self.endpoints = transport, endpoints_of(transport)
        self._server.connections.add(self)  # type: ignore[arg-type]  # uvicorn names only its own protocols
        if self._registry.admit(self):
            return True
        self._record(Refusal.CONNECTIONS)
        self._is_ending = True
        transport.write(REPLIES[Refusal.CONNECTIONS] or b"")
        transport.close()
        return False

    def _leave(self) -> None:
        """Remove the connection from the registry."""
        self._is_ending = True
        self._server.connections.discard(self)
        self._registry.remove(self)

    def _set_reading_paused(self, *, is_paused: bool) -> None:
        if is_paused is not self._is_reading_paused:
            self._is_reading_paused = is_paused
            (self._transport.pause_reading if is_paused else self._transport.resume_reading)()

    def _discard(self, received_bytes: int) -> None:
        """Count bytes that are read and dropped, and reset the connection when they are too many."""
        self._discarded_bytes += received_bytes
        if self._discarded_bytes > DISCARDED_BYTES_MAX:
            self._discarded_bytes = 0
            self._abort(Refusal.DISCARDED_BYTES)

    def _close_after(self, last: bytes | None, *, client_may_send: bool) -> None:
        """Send the remaining replies and `last`, then close.

        Where the client may still send, closing at once would make the kernel drop the reply. So only the sending
        side is closed at first, and received bytes are discarded for a while.
        """
        if self._is_ending:
            return
        self._is_ending = True
        self._registry.outbox.send()
        self._registry.hold(self, 0)
        self._set_reading_paused(is_paused=False)
        if last is not None:
            self._transport.write(last)
        if client_may_send and self._transport.can_write_eof():
            self._transport.write_eof()
            self._registry.move(self, Phase.LINGER)
        else:
            self._registry.move(self, Phase.WRITE)
            self._transport.close()

    def _abort(self, refusal: Refusal | None) -> None:
        self._is_ending = True
        self._registry.outbox.send()
        if refusal is not None:
            self._record(refusal)
        self._transport.abort()

    def _record(self, refusal: Refusal) -> None:
        client = self.endpoints["client"]
        self._registry.refusals.record(refusal, client[0] if client else "")
