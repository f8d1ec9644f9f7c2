"""How an application says that a request was honest.

Where a port is full, connections that have carried an honest request are closed last. Anybody can send a
whole request, so where requests are signed, only the application knows.
"""

from typing import Final, Protocol

from starlette.types import Scope

EXTENSION: Final = "credits.trust"
"""The name, in an ASGI scope's `extensions`, of who sends; missing where nobody asks."""


class Sender(Protocol):
    """Whoever sends on a connection."""

    is_trusted: bool

    def trust(self) -> None:
        """Note that a request was honest."""


def trust_sender(scope: Scope) -> None:
    """Note that the request of a scope was honest, and so is whoever sends on its connection."""
    if (sender := _sender_of(scope)) is not None:
        sender.trust()


def is_sender_trusted(scope: Scope) -> bool:
    """Return whether an earlier request on the connection of a scope was honest."""
    sender = _sender_of(scope)
    return sender is not None and sender.is_trusted


def _sender_of(scope: Scope) -> Sender | None:
    sender: Sender | None = scope.get("extensions", {}).get(EXTENSION)
    return sender
