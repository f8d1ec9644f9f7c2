"""The hook that may answer a request before the application does."""

from typing import Final

from starlette.types import Scope

from shared.http.reader import Request

ADMITTED: Final = "credits.admitted"
"""The key of `Request.is_admitted` in an ASGI scope."""


class Interceptor:
    """Sees each whole request first and may answer it; this one leaves every request to the application."""

    def answer(self, request: Request) -> bytes | None:  # noqa: ARG002
        """Return a whole response to a whole request, or None to leave it to the application."""
        return None


def is_admitted(scope: Scope) -> bool:
    """Tell whether the interceptor has admitted the request of a scope."""
    admitted: bool = scope.get(ADMITTED, False)
    return admitted
