"""The HTTP side of a callback: one route of one integration, a bounded body, and a reply.

Spoken in ASGI's own messages: Starlette's Request and Response would cost a tenth of a credit.
"""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.callback import Integration
from gateway.providers.contract import Callback, Reply
from shared.http import read_body, response_bytes


class CallbackEndpoint:
    """An ASGI application for `POST /NAME/path`; all else there gets the provider's own error."""

    def __init__(self, integration: Integration, path: str, body_bytes_max: int) -> None:
        """Take what answers, the path after the integration's name, and the bound on bodies."""
        self._integration: Final = integration
        self._path: Final = path
        self._body_bytes_max: Final = body_bytes_max
        self._turned_away: tuple[int, bytes] | None = None
        """Status and response of every callback that is turned away, once known, if all get the same."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._answer(scope, receive)
        except ClientDisconnect:
            return  # there is nobody to answer, and nothing was read that could be acted on
        integration = self._integration
        integration.metrics.requests(integration.provider.name, self._path, reply.status).inc()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply.body))]
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def turn_away(self, body: bytes) -> bytes | None:
        """Return a whole response that says 'ask again', or None for a body that is refused for good."""
        if len(body) > self._body_bytes_max:
            return None
        integration = self._integration
        name, turned_away = integration.provider.name, integration.turned_away
        known = self._turned_away
        if known is None:
            reply = integration.turn_away(Callback(self._path, body))
            headers = ("content-type", "application/json"), *reply.headers
            known = reply.status, response_bytes(reply.status, headers, reply.body)
            if not integration.provider.echoes:
                self._turned_away = known
        else:
            turned_away.add(name, 1)
        status, response = known
        turned_away.add_request(name, self._path, status)
        return response

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        callback = _without_body(scope, self._path)
        if scope["method"] != "POST":
            refused = self._integration.refuse(callback, "only POST is answered here")
            return refused._replace(status=405, headers=(*refused.headers, ("Allow", "POST")))
        kind = callback.media_type
        if kind and kind not in self._integration.provider.content_types:
            return self._integration.refuse(callback, f"content type {kind[:50]!r} is not understood")
        body = await read_body(receive, callback.headers, self._body_bytes_max)
        if body is None:
            return self._integration.refuse(callback, f"the body exceeds {self._body_bytes_max} bytes")
        return await self._integration.answer(callback._replace(body=body))


def _without_body(scope: Scope, path: str) -> Callback:
    """Return what the request line and the headers say; of a header that comes twice, the first."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    asked = scope["query_string"].decode("latin-1")
    query = dict(parse_qsl(asked, keep_blank_values=True)) if asked else {}
    return Callback(path, b"", headers, query)
