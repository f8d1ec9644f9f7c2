"""A connection as its port counts it, and how it ends: at once, or with a last reply and time to read it."""

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Final

from uvicorn.server import ServerState

from shared.http.exchange import endpoints_of
from shared.http.refusals import REPLIES, Refusal
from shared.http.registry import ConnectionRegistry, Phase

DISCARDED_BYTES_MAX: Final = 1_048_576
"""Of what comes after the last reply, or a body after its own. Then the connection ends at once."""


class MemberProtocol(asyncio.Protocol, ABC):
    """A connection of a port. uvicorn's server waits for its end, and calls `shutdown` before its own."""

    def __init__(self, registry: ConnectionRegistry, server: ServerState) -> None:
        """Take where connections are counted, and the server's state."""
        self._registry: Final = registry
        self._server: Final = server
        self._is_ending = self._is_reading_paused = False
        self._discarded_bytes = 0
        self.endpoints: dict[str, Any] = {}
        self.phase, self.since, self.held_bytes, self.is_trusted = Phase.HEAD, -1.0, 0, False

    @abstractmethod
    def expire(self, refusal: Refusal | None) -> None:
        """Close the connection, because it has waited for too long, or to make room for another."""

    @abstractmethod
    def shutdown(self) -> None:
        """Close when what has come is answered."""

    def _enter(self, transport: asyncio.Transport) -> bool:
        """Have the connection counted, and return whether there is room for it; if not, it ends."""
        self._transport, self.endpoints = transport, endpoints_of(transport)
        self._server.connections.add(self)  # type: ignore[arg-type]  # of its own protocols, uvicorn means
        if self._registry.admit(self):
            return True
        self._record(Refusal.CONNECTIONS)
        self._is_ending = True
        transport.write(REPLIES[Refusal.CONNECTIONS] or b"")
        transport.close()
        return False

    def _leave(self) -> None:
        """Have the connection counted no more."""
        self._is_ending = True
        self._server.connections.discard(self)
        self._registry.remove(self)

    def _pause_reading(self, *, is_wanted: bool) -> None:
        if is_wanted is not self._is_reading_paused:
            self._is_reading_paused = is_wanted
            (self._transport.pause_reading if is_wanted else self._transport.resume_reading)()

    def _discard(self, received_bytes: int) -> None:
        """Pass over what is of no use, but not for ever."""
        self._discarded_bytes += received_bytes
        if self._discarded_bytes > DISCARDED_BYTES_MAX:
            self._discarded_bytes = 0
            self._abort(Refusal.DISCARDED_BYTES)

    def _close_after(self, last: bytes | None, *, may_send_on: bool) -> None:
        """Send what is left to be sent and the last reply, then close.

        Where more may come from the client, to close would have the kernel throw away the reply. So the
        sending side is closed first, and what comes is passed over for a while.
        """
        if self._is_ending:
            return
        self._is_ending = True
        self._registry.outbox.send()
        self._registry.hold(self, 0)
        self._pause_reading(is_wanted=False)
        if last is not None:
            self._transport.write(last)
        if may_send_on and self._transport.can_write_eof():
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
