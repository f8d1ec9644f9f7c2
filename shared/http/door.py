"""What may answer a request before the application hears of it."""

from shared.http.reader import Request


class Door:
    """Where requests come in: some may be answered before the application hears of them."""

    def answer(self, request: Request) -> bytes | None:  # noqa: ARG002
        """Return a whole response to a whole request, or None to have the application answer."""
        return None
