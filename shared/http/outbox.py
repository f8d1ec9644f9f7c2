"""Sends all replies of one turn of the event loop together, when it ends.

Sending each at once would wake its client between two replies, and where both share processors the server
would pay for the switches.
"""

import asyncio
from typing import Final


class Outbox:
    """The unsent bytes of one port's connections."""

    def __init__(self) -> None:
        """Start empty."""
        self._unsent: Final[list[tuple[asyncio.Transport, bytes]]] = []

    def add(self, transport: asyncio.Transport, data: bytes) -> None:
        """Queue bytes for a connection, after those queued before; they are sent when this turn ends."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.send)
        self._unsent.append((transport, data))

    def send(self) -> None:
        """Send everything now; must also be called before a connection is closed."""
        unsent = list(self._unsent)
        self._unsent.clear()
        for transport, data in unsent:
            if not transport.is_closing():
                transport.write(data)
