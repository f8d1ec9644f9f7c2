"""Replies that were made in one turn of the event loop leave together when it ends.

To send each at once would wake its client between two replies: with client and server on the same processors
that cost a twentieth of what a gateway pays.
"""

import asyncio
from typing import Final


class Outbox:
    """What the connections of one port have to send."""

    def __init__(self) -> None:
        """Begin with nothing to send."""
        self._unsent: Final[list[tuple[asyncio.Transport, bytes]]] = []

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Have bytes sent on a connection, after what was added before, when this turn ends."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.send)
        self._unsent.append((transport, data))

    def send(self) -> None:
        """Send all that was added: due before a connection is closed, too."""
        unsent = list(self._unsent)
        self._unsent.clear()
        for transport, data in unsent:
            if not transport.is_closing():
                transport.write(data)
