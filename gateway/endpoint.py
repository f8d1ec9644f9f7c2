"""The HTTP side of a callback: one route of one integration, a bounded body, and a reply."""

from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.callback import Integration
from gateway.providers.contract import Callback, Reply
from shared.http import read_body


class CallbackEndpoint:
    """An ASGI application for `POST /NAME/path`; all else there gets the provider's own error."""

    def __init__(self, integration: Integration, path: str, body_bytes_max: int) -> None:
        """Take what answers, the path after the integration's name, and the bound on bodies."""
        self._integration: Final = integration
        self._path: Final = path
        self._body_bytes_max: Final = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        try:
            reply = await self._answer(request)
        except ClientDisconnect:
            return  # there is nobody to answer, and nothing was read that could be acted on
        self._integration.metrics.requests.labels(
            self._integration.provider.name, self._path, reply.status
        ).inc()
        response = Response(reply.body, reply.status, dict(reply.headers), "application/json")
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Reply:
        callback = Callback(self._path, b"", request.headers, request.query_params)
        if request.method != "POST":
            refused = self._integration.refuse(callback, "only POST is answered here")
            return refused._replace(status=405, headers=(*refused.headers, ("Allow", "POST")))
        kind = callback.media_type
        if kind and kind not in self._integration.provider.content_types:
            return self._integration.refuse(callback, f"content type {kind[:50]!r} is not understood")
        body = await read_body(request, self._body_bytes_max)
        if body is None:
            return self._integration.refuse(callback, f"the body exceeds {self._body_bytes_max} bytes")
        return await self._integration.answer(callback._replace(body=body))
