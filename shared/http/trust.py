"""Lets an application mark a connection as trusted.

When a port is full, trusted connections are closed last. Anyone can send a well-formed request, so where
requests are signed, only the application knows which connections carry genuine ones.
"""

from typing import Final, Protocol

from starlette.types import Scope

EXTENSION: Final = "credits.trust"
"""The key of the `Sender` in an ASGI scope's `extensions`; absent where the server needs no report."""


class Sender(Protocol):
    """The connection that a request came on."""

    is_trusted: bool

    def trust(self) -> None:
        """Mark the connection as trusted: one of its requests was genuine."""


def trust_sender(scope: Scope) -> None:
    """Mark the connection of a request as trusted, because the request was genuine."""
    if (sender := _sender_of(scope)) is not None:
        sender.trust()


def is_sender_trusted(scope: Scope) -> bool:
    """Return whether an earlier request on the same connection was genuine."""
    sender = _sender_of(scope)
    return sender is not None and sender.is_trusted


def _sender_of(scope: Scope) -> Sender | None:
    sender: Sender | None = scope.get("extensions", {}).get(EXTENSION)
    return sender
