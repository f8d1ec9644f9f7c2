"""How an application says that a request was honest.

Where a port is full, connections that have carried an honest request are closed last. Anybody can send a
whole request, so where requests are signed, only the application knows.
"""

from typing import Final

from starlette.types import Scope

EXTENSION: Final = "credits.trust"
"""The name, in an ASGI scope's `extensions`, of what an application calls; missing where nobody asks."""


def trust_sender(scope: Scope) -> None:
    """Note that the request of a scope was honest, and so is whoever sends on its connection."""
    trust = scope.get("extensions", {}).get(EXTENSION)
    if trust is not None:
        trust()
