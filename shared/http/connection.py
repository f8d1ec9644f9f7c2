"""One client connection: reads requests, answers them in order, and keeps to the port's bounds."""

import asyncio
from typing import Any, Final

import uvicorn
from uvicorn.server import ServerState

from shared.http.exchange import CLOSE, Exchange
from shared.http.interceptor import Interceptor
from shared.http.member import MemberProtocol
from shared.http.reader import Request, RequestReader
from shared.http.refusals import REPLIES, Refusal
from shared.http.registry import SMALL_BYTES, ConnectionRegistry, Phase
from shared.http.trust import EXTENSION

UNREAD_BODY_BYTES_MAX: Final = 65_536
"""When this much of a body waits for the application, the connection is not read until it is consumed."""

_ABORTING: Final = frozenset((Refusal.WRITE_SECONDS, Refusal.CONNECTIONS))


class Connection(MemberProtocol):
    """An HTTP/1.1 connection, created by uvicorn's server, which also waits for it to end.

    One request is answered at a time. The interceptor sees a request only if the parser has read it to its end,
    everything before it is answered, and the connection stays open after it.
    """

    def __init__(
        self,
        registry: ConnectionRegistry,
        interceptor: Interceptor,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take the connection registry, the interceptor, and what uvicorn passes to each connection."""
        super().__init__(registry, server_state)
        bounds = registry.bounds
        self._interceptor: Final = interceptor
        self._app: Final = config.loaded_app
        self._loop: Final = _loop or asyncio.get_running_loop()
        self._reader: Final = RequestReader(bounds.head_bytes_max, bounds.pipelined_requests_max)
        self._exchange: Exchange | None = None
        """The request that is being answered; later ones wait in `_queue`."""
        self._queue: list[Exchange] = []
        self._incoming: Exchange | None = None
        """The request whose body is still arriving, even if it has been answered already."""
        self._final_reply: bytes | None = None
        """The bytes to send after all replies, before the connection closes."""
        self._is_last = False
        """Whether no further request is accepted."""
        self._is_fresh = True
        """Whether no request has arrived in full yet."""
        self._is_lost = self._cannot_write = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Register the connection, or refuse it when there are too many."""
        if self._enter(transport) and self._registry.app_reports_trust:
            self.endpoints["extensions"] = {EXTENSION: self}

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Drop every reference to this connection, so that its memory is freed without a garbage collection."""
        self._is_lost = True
        self._leave()
        self.endpoints.pop("extensions", None)
        self._reader.close()
        if self._exchange is not None:
            self._registry.hold(self, self._exchange.request.held_bytes)  # until the application returns
            self._exchange.disconnect()
        self._exchange = self._incoming = None
        self._queue.clear()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, and answer or start the requests whose turn it is."""
        if self._is_ending or (self._is_last and self._incoming is None):
            self._discard(len(data))
            return
        waiting = len(self._queue) + (self._exchange is not None)
        refusal = self._reader.feed(data, waiting)
        requests = self._reader.requests
        if self._incoming is not None:
            self._continue(self._incoming, len(data))
        for request in requests:
            if not (self._is_last or self._is_ending):
                self._accept(request)
        if refusal is not None and not (self._is_last and self._incoming is None):
            self._refuse(refusal)
        elif self._is_at_rest():  # as after a request that the interceptor has answered
            self._registry.move(self, Phase.IDLE, is_new=bool(requests))
        elif not self._is_ending:
            self._update_phase(is_new=bool(requests))
            self._count_held_bytes()

    def _is_at_rest(self) -> bool:
        """Return whether there is nothing to answer, to read on, to hold or to send."""
        is_reading = self._is_fresh or self._incoming is not None or self._reader.is_in_head
        is_writing = self._is_ending or self._cannot_write
        return self._exchange is None and not (self._queue or is_reading or is_writing or self.held_bytes)

    def eof_received(self) -> bool:
        """Answer the requests that arrived in full, though the client sends no more; close if there are none."""
        if self._is_ending:
            return False
        self._is_last = True
        self._drop_incoming()
        if (self._exchange is not None or self._queue) and self.endpoints["scheme"] == "http":
            return True
        self._close()
        return False

    def pause_writing(self) -> None:
        """Start no request and read no bytes while the client does not read its replies."""
        self._cannot_write = True
        self._update_phase()

    def resume_writing(self) -> None:
        """Continue: the client reads again."""
        self._cannot_write = False
        self._advance()

    def shutdown(self) -> None:
        """Close once every request that has arrived is answered."""
        self._is_last = True
        if self._exchange is None and not self._queue:
            self._close()

    def expire(self, refusal: Refusal | None) -> None:
        """Close the connection, because it has waited too long or to make room for another."""
        if refusal is None or self._is_ending or refusal in _ABORTING:
            self._abort(refusal)
        elif refusal is Refusal.HEAD_SECONDS and not self._reader.is_in_head:
            self._record(refusal)  # the client expects no reply to a request that it never began
            self._close()
        else:
            self._refuse(refusal)

    def trust(self) -> None:
        """Mark the connection as trusted: the application has verified one of its requests."""
        if not self.is_trusted and not self._is_lost:
            self._registry.trust(self)

    def write(self, data: bytes) -> None:
        """Send a whole reply, or an interim one, at the end of this turn of the event loop."""
        if not self._is_ending:
            self._registry.outbox.add(self._transport, data)

    def resume_body(self) -> None:
        """Read more of the body, which was left unread because the application had not consumed enough of it."""
        self._update_phase()

    def reply_headers(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """Return the headers of every reply, with `connection: close` where the connection closes after it."""
        closes = not exchange.request.keep_alive or (self._is_last and not self._queue and self._final_reply is None)
        return [*self._server.default_headers, CLOSE] if closes else self._server.default_headers

    def end(self, response: bytes, *, is_last: bool) -> None:
        """Send the reply to the current request and continue with the queue, unless the reply closes the connection."""
        self._exchange = None
        self.write(response)
        if is_last:
            self._is_last = True
            self._queue.clear()
        self._advance()

    def _accept(self, request: Request) -> None:
        """Answer a request by the interceptor, start it, or queue it."""
        self._is_last = not request.keep_alive
        is_next = self._exchange is None and not self._queue and not self._cannot_write
        if request.is_whole:
            self._complete()
            if is_next and request.keep_alive and (response := self._interceptor.answer(request)) is not None:
                self.write(response)
                return
        held_bytes = self.held_bytes + request.held_bytes
        if request.held_bytes > SMALL_BYTES and not self._registry.hold(self, held_bytes):
            self._refuse(Refusal.BUFFERED_BYTES)  # before the application starts
            return
        exchange = Exchange(self, request)
        self._incoming = None if request.is_whole else exchange
        if is_next:
            self._begin(exchange)
        else:
            self._queue.append(exchange)

    def _begin(self, exchange: Exchange) -> None:
        self._exchange = exchange
        task = self._loop.create_task(exchange.run(self._app))
        self._server.tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """Release the bytes of a request whose application still ran when the connection was lost."""
        self._server.tasks.discard(task)
        if self._is_lost:
            self._registry.hold(self, 0)

    def _continue(self, incoming: Exchange, received_bytes: int) -> None:
        """Pass more of a body on to its request."""
        incoming.wake()
        if incoming.request.is_whole:
            self._incoming = None
            self._discarded_bytes = 0
            self._complete()
        elif incoming.request.is_discarded:
            self._discard(received_bytes)

    def _complete(self) -> None:
        if self._is_fresh:
            self._is_fresh = False
            if not self._registry.app_reports_trust:
                self.trust()

    def _advance(self) -> None:
        """Start the next request, or close if there is none and no more will come."""
        if self._is_ending:
            return
        if self._exchange is None and not self._cannot_write:
            if self._queue:
                self._begin(self._queue.pop(0))
            elif self._is_last:
                self._close()
                return
        self._update_phase()
        self._count_held_bytes()

    def _update_phase(self, *, is_new: bool = False) -> None:
        """Record what the connection waits for, and pause reading while earlier requests or replies need it."""
        if self._is_ending:
            return
        incoming = self._incoming
        if self._cannot_write:
            phase = Phase.WRITE
        elif incoming is not None:
            phase = Phase.BODY
        elif self._exchange is not None:
            phase = Phase.BUSY
        elif self._reader.is_in_head or self._is_fresh:
            phase = Phase.HEAD
        else:
            phase = Phase.IDLE
        self._registry.move(self, phase, is_new=is_new)
        is_full = incoming is not None and len(incoming.request.body) > UNREAD_BODY_BYTES_MAX
        self._set_reading_paused(is_paused=self._cannot_write or bool(self._queue) or is_full)

    def _count_held_bytes(self) -> None:
        """Count the bytes held until they are answered, including a body that the application has consumed."""
        held_bytes = self._reader.pending_bytes
        if self._exchange is not None:
            held_bytes += self._exchange.request.held_bytes
        for exchange in self._queue:
            held_bytes += exchange.request.held_bytes
        if held_bytes == self.held_bytes or self._registry.hold(self, held_bytes):
            return
        if self._queue or self._reader.is_in_head or self._incoming is not None:
            self._refuse(Refusal.BUFFERED_BYTES)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer the requests that arrived in full, then send the reason for the refusal and close."""
        self._record(refusal)
        self._is_last = True
        self._final_reply = None if self._drop_incoming() else REPLIES[refusal]
        self._advance()

    def _drop_incoming(self) -> bool:
        """Give up the request whose body is still arriving, and return whether it has been answered already."""
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return False
        is_answered = incoming is not self._exchange and incoming not in self._queue
        if incoming is self._exchange:
            self._exchange = None
        elif not is_answered:
            self._queue.remove(incoming)
        incoming.disconnect()
        return is_answered

    def _close(self) -> None:
        """Send the rest of the replies, then close."""
        is_refused = self._final_reply is not None or self._incoming is not None
        self._close_after(self._final_reply, client_may_send=is_refused)
