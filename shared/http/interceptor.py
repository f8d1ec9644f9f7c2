"""The hook that may answer a request before the application does."""

from shared.http.reader import Request


class Interceptor:
    """Sees each whole request first and may answer it; this one leaves every request to the application."""

    def answer(self, request: Request) -> bytes | None:  # noqa: ARG002
        """Return a whole response to a whole request, or None to leave it to the application."""
        return None
