"""What a path that is no callback gets: 404, in the provider's own shape under an integration's name.

Paths are matched as they were sent, byte by byte. Nothing is decoded or completed, and nobody is redirected:
a redirect would lead to wherever the request's Host header says.
"""

from collections.abc import Iterable
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from gateway.endpoint import send_reply
from gateway.providers.base import Callback, Provider, Reply, json_reply
from gateway.rejections import Reason, RejectionLog
from shared.outcome import Outcome, OutcomeCode


class NotFound:
    """An ASGI application that reads no body and says the same to everyone, so that it costs little."""

    def __init__(self, providers: Iterable[Provider[Any, Any]], rejections: RejectionLog) -> None:
        """Take the integrations whose shape there is, and what counts and logs."""
        self._rejections: Final = rejections
        self._replies: Final = {each.name.encode(): (each.name, _reply_of(each)) for each in providers}
        self._elsewhere: Final = "", json_reply({"error": "not found"}, 404)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        del receive  # what of a body is still to come is passed over by the connection
        segment = scope["raw_path"][1:].partition(b"/")[0]
        name, reply = self._replies.get(segment, self._elsewhere)
        self._rejections.record(Reason.UNKNOWN_PATH, name)
        await send_reply(send, reply)


def _reply_of(provider: Provider[Any, Any]) -> Reply:
    outcome = Outcome(OutcomeCode.MALFORMED, detail="there is no such path")
    return provider.render(Callback("", b""), outcome)._replace(status=404)
