"""The reply to a path that is no callback: 404, in the provider's own form below an integration's name.

Paths are matched as they were sent, byte by byte. Nothing is decoded or completed, and nothing is redirected: a
redirect would lead to the host that the request's Host header names.
"""

from collections.abc import Iterable
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from gateway.endpoint import send_reply
from gateway.providers.base import Callback, Provider, Reply, json_reply
from gateway.rejections import Reason, RejectionLog
from shared.outcome import Outcome, OutcomeCode


class NotFound:
    """An ASGI application that reads no body and sends prepared replies, so that it costs little."""

    def __init__(self, providers: Iterable[Provider[Any, Any]], rejections: RejectionLog) -> None:
        """Take the integrations' providers, and the log that counts what is answered here."""
        self._rejections: Final = rejections
        self._replies: Final = {each.name.encode(): (each.name, _not_found(each)) for each in providers}
        self._no_integration: Final = "", json_reply({"error": "not found"}, 404)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        del receive  # the connection discards the body
        segment = scope["raw_path"][1:].partition(b"/")[0]
        name, reply = self._replies.get(segment, self._no_integration)
        self._rejections.record(Reason.UNKNOWN_PATH, name)
        await send_reply(send, reply)


def _not_found(provider: Provider[Any, Any]) -> Reply:
    outcome = Outcome(OutcomeCode.MALFORMED, detail="there is no such path")
    return provider.render(Callback("", b""), outcome)._replace(status=404)
