"""The HTTP side of a callback: one route of one integration, a bounded body, and a reply.

Spoken in ASGI's own messages: Starlette's Request and Response would cost a tenth of a credit.
"""

from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.addresses import AddressRule
from gateway.callback import CallbackHandler
from gateway.pace import Pace, is_short
from gateway.providers.base import Callback, CallbackRejected, Reply
from gateway.query import read_query
from gateway.rejections import Reason, RejectionLog
from shared.http import is_sender_trusted, read_body, response_bytes, trust_sender
from shared.outcome import Outcome, OutcomeCode

_BLANKS: Final = " \t"


class CallbackEndpoint:
    """An ASGI application for `POST /NAME/path`; all else there gets the provider's own error."""

    def __init__(
        self,
        integration: CallbackHandler,
        path: str,
        body_bytes_max: int,
        rejections: RejectionLog,
        address_rule: AddressRule | None = None,
    ) -> None:
        """Take what answers, the path after the integration's name, the bound on bodies, and who is heard."""
        self._integration: Final = integration
        self._path: Final = path
        self._body_bytes_max: Final = body_bytes_max
        self._rejections: Final = rejections
        self._address_rule: Final = address_rule
        read = {"content-length", *integration.provider.headers}
        self._headers_read: Final = {name.encode(): name for name in read}
        self._turned_away: tuple[int, bytes] | None = None
        """Status and response of every callback that is turned away, once known, if all get the same."""

    @property
    def hears_everyone(self) -> bool:
        """Whether a callback may come from any address."""
        return self._address_rule is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            reply = await self._answer(scope, receive)
        except ClientDisconnect:
            return  # there is nobody to answer, and nothing was read that could be acted on
        integration = self._integration
        integration.metrics.requests(integration.provider.name, self._path, reply.status).inc()
        await send_reply(send, reply)

    def shed(self, body: bytes) -> bytes | None:
        """Return a whole response that says 'ask again', or None for what is long, or of many credits."""
        if not is_short(body) or len(body) > self._body_bytes_max:
            return None
        integration = self._integration
        name, turned_away = integration.provider.name, integration.shed_log
        known = self._turned_away
        if known is None:
            callback = Callback(self._path, body)
            if not integration.provider.holds_few(callback):
                return None
            reply = integration.shed(callback)
            headers = ("content-type", "application/json"), *reply.headers
            known = reply.status, response_bytes(reply.status, headers, reply.body)
            if not integration.provider.retry_reply_varies:
                self._turned_away = known
        else:
            turned_away.add(name, 1)
        status, response = known
        turned_away.record_request(name, self._path, status)
        return response

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        if self._address_rule is not None and not _is_heard(scope, self._address_rule):
            return self._refuse_address()
        bare = Callback(self._path, b"")
        if scope["method"] != "POST":
            refused = self._integration.refuse(bare, "only POST is answered here")
            return refused._replace(status=405, headers=(*refused.headers, ("Allow", "POST")))
        try:
            callback = self._read_head(scope)
        except CallbackRejected as refusal:
            return self._integration.refuse(bare, refusal.outcome.detail)
        body = await read_body(receive, callback.headers, self._body_bytes_max)
        if body is None:
            return self._integration.refuse(callback, f"the body exceeds {self._body_bytes_max} bytes")
        pace = Pace(self._integration.turns, is_sender_trusted=is_sender_trusted(scope))
        reply = await self._integration.handle(callback._replace(body=body), pace)
        if pace.is_signed:
            trust_sender(scope)
        return reply

    def _read_head(self, scope: Scope) -> Callback:
        """Return what the request line and the headers say, without a body. Raises Refused.

        Of the headers only those are kept that the provider reads; none may come with two values. What it
        does not read costs no win: not a content type, nor a query beside a body that says it all.
        """
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            if (known := self._headers_read.get(name)) is not None:
                text = value.decode("latin-1").strip(_BLANKS)
                if headers.setdefault(known, text) != text:
                    raise CallbackRejected(OutcomeCode.MALFORMED, f"the header {known} comes twice")
        query = read_query(scope["query_string"]) if self._integration.provider.reads_query else {}
        return Callback(self._path, b"", headers, query)

    def _refuse_address(self) -> Reply:
        """Refuse a client that is not heard, with a status after which a provider may ask again."""
        provider = self._integration.provider
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


def _is_heard(scope: Scope, rule: AddressRule) -> bool:
    client = scope.get("client")
    forwarded_for = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return rule.allows(client[0] if client else "", b",".join(forwarded_for).decode("latin-1"))
