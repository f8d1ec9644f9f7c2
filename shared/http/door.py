"""What may answer a request before the application hears of it."""

from typing import Final

from starlette.types import Scope

from shared.http.reader import Request

ADMITTED: Final = "credits.admitted"
"""The name, in an ASGI scope, of `Request.is_admitted`."""


class Door:
    """Where requests come in: some may be answered before the application hears of them."""

    def answer(self, request: Request) -> bytes | None:  # noqa: ARG002
        """Return a whole response to a whole request, or None to have the application answer."""
        return None


def is_admitted(scope: Scope) -> bool:
    """Return whether the door has decided to let the request of a scope through."""
    admitted: bool = scope.get(ADMITTED, False)
    return admitted
