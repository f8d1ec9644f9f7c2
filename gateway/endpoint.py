"""The HTTP side of a callback: one route of one integration, a bounded body, and a reply.

It uses ASGI's messages directly, because Starlette's Request and Response would take a noticeable part of the time
of a credit.
"""

from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.addresses import AddressRule
from gateway.callback import CallbackHandler
from gateway.providers.base import Callback, CallbackRejected, Reply
from gateway.query import read_query
from gateway.rejections import Reason, RejectionLog
from gateway.time_slices import TimeSlices
from shared.http import is_admitted, is_sender_trusted, read_body, trust_sender
from shared.outcome import Outcome, OutcomeCode

_BLANKS: Final = " \t"


class CallbackEndpoint:
    """An ASGI application for `POST /NAME/path`; any other method there gets the provider's own error."""

    def __init__(
        self,
        handler: CallbackHandler,
        path: str,
        body_bytes_max: int,
        rejections: RejectionLog,
        address_rule: AddressRule | None = None,
    ) -> None:
        """Take the integration's handler, the path after its name, and the allowed addresses (all, if left out)."""
        self._handler: Final = handler
        self._path: Final = path
        self._body_bytes_max: Final = body_bytes_max
        self._rejections: Final = rejections
        self._address_rule: Final = address_rule
        names = {"content-length", *handler.provider.headers}
        self._headers_read: Final = {name.encode(): name for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._answer(scope, receive)
        except ClientDisconnect:
            return  # the request is incomplete, and nobody waits for a reply
        handler = self._handler
        handler.metrics.requests(handler.provider.name, self._path, reply.status).inc()
        await send_reply(send, reply)

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        if self._address_rule is not None and not _is_allowed(scope, self._address_rule):
            return self._reject_address()
        bare = Callback(self._path, b"")
        if scope["method"] != "POST":
            rejected = self._handler.reject(bare, _malformed("only POST is answered here"))
            return rejected._replace(status=405, headers=(*rejected.headers, ("Allow", "POST")))
        try:
            callback = self._read_head(scope)
        except CallbackRejected as error:
            return self._handler.reject(bare, error.outcome)
        body = await read_body(receive, callback.headers, self._body_bytes_max)
        if body is None:
            return self._handler.reject(callback, _malformed(f"the body exceeds {self._body_bytes_max} bytes"))
        slices = TimeSlices(self._handler.scheduler, is_sender_trusted=is_sender_trusted(scope))
        reply = await self._handler.handle(callback._replace(body=body), slices, is_admitted=is_admitted(scope))
        if slices.is_signed:
            trust_sender(scope)
        return reply

    def _read_head(self, scope: Scope) -> Callback:
        """Return the callback without its body. Raises CallbackRejected for a header that has two values.

        Only the headers and the query that the provider reads are checked and kept. Whatever else a request has,
        such as another content type or a query that nothing reads, is no reason to reject a win.
        """
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            if (known := self._headers_read.get(name)) is not None:
                text = value.decode("latin-1").strip(_BLANKS)
                if headers.setdefault(known, text) != text:
                    raise CallbackRejected(OutcomeCode.MALFORMED, f"the header {known} comes twice")
        query = read_query(scope["query_string"]) if self._handler.provider.reads_query else {}
        return Callback(self._path, b"", headers, query)

    def _reject_address(self) -> Reply:
        """Reject a client by its address, with a status after which a provider may send the callback again."""
        provider = self._handler.provider
        self._rejections.record(Reason.UNKNOWN_ADDRESS, provider.name)
        outcome = Outcome(OutcomeCode.UNKNOWN_CALLER, detail="this address is not one of the allowed ones")
        reply = provider.render(Callback(self._path, b""), outcome)
        return reply._replace(status=403, headers=(*reply.headers, ("connection", "close")))


async def send_reply(send: Send, reply: Reply) -> None:
    """Send a reply as JSON."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply.body))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})


def _malformed(detail: str) -> Outcome:
    return Outcome(OutcomeCode.MALFORMED, detail=detail)


def _is_allowed(scope: Scope, rule: AddressRule) -> bool:
    client = scope.get("client")
    forwarded_for = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return rule.allows(client[0] if client else "", b",".join(forwarded_for).decode("latin-1"))
