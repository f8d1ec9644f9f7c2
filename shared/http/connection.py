"""One connection of a client: its requests in order, their replies, and bounds on what it may take."""

import asyncio
from typing import Any, Final

import uvicorn
from uvicorn.server import ServerState

from shared.http.door import Door
from shared.http.exchange import CLOSE, Exchange
from shared.http.member import MemberProtocol
from shared.http.reader import Request, RequestReader
from shared.http.refusals import REPLIES, Refusal
from shared.http.registry import SMALL_BYTES, ConnectionRegistry, Phase
from shared.http.trust import EXTENSION

UNTAKEN_BYTES_MAX: Final = 65_536
"""Of a body that the application has not taken; no more is read until it does."""

_AT_ONCE: Final = frozenset((Refusal.WRITE_SECONDS, Refusal.CONNECTIONS))


class Connection(MemberProtocol):
    """HTTP/1.1 on one connection, made by uvicorn's server, which also waits for it to end.

    One request is answered at a time. The door is asked about a request that the parser has read to its end,
    when everything before it is answered, and where the connection stays open after it.
    """

    def __init__(
        self,
        registry: ConnectionRegistry,
        door: Door,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Take where connections are counted, the door, and what uvicorn gives to each connection."""
        super().__init__(registry, server_state)
        bounds = registry.bounds
        self._door: Final = door
        self._app: Final = config.loaded_app
        self._loop: Final = _loop or asyncio.get_running_loop()
        self._reader: Final = RequestReader(bounds.head_bytes_max, bounds.pipelined_requests_max)
        self._exchange: Exchange | None = None
        """The request that is being answered; those after it wait."""
        self._queue: list[Exchange] = []
        self._arriving: Exchange | None = None
        """The request, among those, whose body is still coming."""
        self._last: bytes | None = None
        """What is sent after all replies, before the connection closes."""
        self._is_last = False
        """Whether no further request is taken."""
        self._is_fresh = True
        """Whether no request of it has come whole yet."""
        self._is_lost = self._cannot_write = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many."""
        if self._enter(transport) and self._registry.is_told_of_trust:
            self.endpoints["extensions"] = {EXTENSION: self}

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
        """Let go of all that refers to this connection: memory comes back without a search for garbage."""
        self._is_lost = True
        self._leave()
        self.endpoints.pop("extensions", None)
        self._reader.close()
        if self._exchange is not None:
            self._registry.hold(self, self._exchange.request.held_bytes)  # until the application is done with it
            self._exchange.disconnect()
        self._exchange = self._arriving = None
        self._queue.clear()

    def data_received(self, data: bytes) -> None:
        """Read requests, and answer or begin those that are first in turn."""
        if self._is_ending or (self._is_last and self._arriving is None):
            self._discard(len(data))
            return
        waiting = len(self._queue) + (self._exchange is not None)
        refusal = self._reader.feed(data, waiting)
        requests = self._reader.requests
        if self._arriving is not None:
            self._continue(self._arriving, len(data))
        for request in requests:
            if not (self._is_last or self._is_ending):
                self._take(request)
        if refusal is not None and not (self._is_last and self._arriving is None):
            self._refuse(refusal)
        elif self._is_at_rest():  # as after a request that was answered at the door
            self._registry.move(self, Phase.IDLE, is_new=bool(requests))
        elif not self._is_ending:
            self._settle(is_new=bool(requests))
            self._hold()

    def _is_at_rest(self) -> bool:
        """Tell whether there is nothing to answer, to read on, to hold or to send."""
        is_reading = self._is_fresh or self._arriving is not None or self._reader.is_in_head
        is_writing = self._is_ending or self._cannot_write
        return self._exchange is None and not (self._queue or is_reading or is_writing or self.held_bytes)

    def eof_received(self) -> bool:
        """Answer what came whole, though the client sends no more; close where there is nothing to answer."""
        if self._is_ending:
            return False
        self._is_last = True
        self._drop_arriving()
        if (self._exchange is not None or self._queue) and self.endpoints["scheme"] == "http":
            return True
        self._close()
        return False

    def pause_writing(self) -> None:
        """Begin nothing more, and read nothing more: the client does not read."""
        self._cannot_write = True
        self._settle()

    def resume_writing(self) -> None:
        """Go on: the client has read."""
        self._cannot_write = False
        self._go_on()

    def shutdown(self) -> None:
        """Close when what has come is answered."""
        self._is_last = True
        if self._exchange is None and not self._queue:
            self._close()

    def expire(self, refusal: Refusal | None) -> None:
        """Close the connection, because it has waited for too long, or to make room for another."""
        if refusal is None or self._is_ending or refusal in _AT_ONCE:
            self._abort(refusal)
        elif refusal is Refusal.HEAD_SECONDS and not self._reader.is_in_head:
            self._record(refusal)  # of a request that never began, no reply is expected
            self._close()
        else:
            self._refuse(refusal)

    def trust(self) -> None:
        """Note that the application has found a request honest."""
        if not self.is_trusted and not self._is_lost:
            self._registry.trust(self)

    def write(self, data: bytes) -> None:
        """Send a reply, or what is not the end of one, when this turn of the loop ends."""
        if not self._is_ending:
            self._registry.outbox.add(self._transport, data)

    def read_on(self) -> None:
        """Read what was left unread because the body so far had not been taken."""
        self._settle()

    def headers_of(self, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        """Return the headers that every reply has, and whether the connection closes after it."""
        closes = not exchange.request.keep_alive or (self._is_last and not self._queue and self._last is None)
        return [*self._server.default_headers, CLOSE] if closes else self._server.default_headers

    def end(self, response: bytes, *, is_last: bool) -> None:
        """Send the reply to a request, and go on with what waits, unless the reply says that it closes."""
        self._exchange = None
        self.write(response)
        if is_last:
            self._is_last = True
            self._queue.clear()
        self._go_on()

    def _take(self, request: Request) -> None:
        """Answer a request at the door, begin it, or let it wait for its turn."""
        self._is_last = not request.keep_alive
        is_next = self._exchange is None and not self._queue and not self._cannot_write
        if request.is_whole:
            self._complete()
            if is_next and request.keep_alive and (response := self._door.answer(request)) is not None:
                self.write(response)
                return
        held_bytes = self.held_bytes + request.held_bytes
        if request.held_bytes > SMALL_BYTES and not self._registry.hold(self, held_bytes):
            self._refuse(Refusal.BUFFERED_BYTES)  # before the application begins with it
            return
        exchange = Exchange(self, request)
        self._arriving = None if request.is_whole else exchange
        if is_next:
            self._begin(exchange)
        else:
            self._queue.append(exchange)

    def _begin(self, exchange: Exchange) -> None:
        self._exchange = exchange
        task = self._loop.create_task(exchange.run(self._app))
        self._server.tasks.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        """Count no more what the application was at when the connection was lost."""
        self._server.tasks.discard(task)
        if self._is_lost:
            self._registry.hold(self, 0)

    def _continue(self, arriving: Exchange, received_bytes: int) -> None:
        """Hand on what came of a body."""
        arriving.wake()
        if arriving.request.is_whole:
            self._arriving = None
            self._discarded_bytes = 0
            self._complete()
        elif arriving.request.is_discarded:
            self._discard(received_bytes)

    def _complete(self) -> None:
        if self._is_fresh:
            self._is_fresh = False
            if not self._registry.is_told_of_trust:
                self.trust()

    def _go_on(self) -> None:
        """Begin the next request, or close where there is none and will be none."""
        if self._is_ending:
            return
        if self._exchange is None and not self._cannot_write:
            if self._queue:
                self._begin(self._queue.pop(0))
            elif self._is_last:
                self._close()
                return
        self._settle()
        self._hold()

    def _settle(self, *, is_new: bool = False) -> None:
        """Note what the connection waits for, and read on unless what came before has to be done first."""
        if self._is_ending:
            return
        arriving = self._arriving
        if self._cannot_write:
            phase = Phase.WRITE
        elif arriving is not None:
            phase = Phase.BODY
        elif self._exchange is not None:
            phase = Phase.BUSY
        elif self._reader.is_in_head or self._is_fresh:
            phase = Phase.HEAD
        else:
            phase = Phase.IDLE
        self._registry.move(self, phase, is_new=is_new)
        is_full = arriving is not None and len(arriving.request.body) > UNTAKEN_BYTES_MAX
        self._pause_reading(is_wanted=self._cannot_write or bool(self._queue) or is_full)

    def _hold(self) -> None:
        """Count what is kept here until it is answered; a body too that the application took."""
        held_bytes = self._reader.pending_bytes
        if self._exchange is not None:
            held_bytes += self._exchange.request.held_bytes
        for exchange in self._queue:
            held_bytes += exchange.request.held_bytes
        if held_bytes == self.held_bytes or self._registry.hold(self, held_bytes):
            return
        if self._queue or self._reader.is_in_head or self._arriving is not None:
            self._refuse(Refusal.BUFFERED_BYTES)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what came whole, then say why no more is, and close."""
        self._record(refusal)
        self._is_last = True
        self._last = None if self._drop_arriving() else REPLIES[refusal]
        self._go_on()

    def _drop_arriving(self) -> bool:
        """Give up the request whose body is still coming, and return whether it has its reply already."""
        arriving, self._arriving = self._arriving, None
        if arriving is None:
            return False
        is_answered = arriving is not self._exchange and arriving not in self._queue
        if arriving is self._exchange:
            self._exchange = None
        elif not is_answered:
            self._queue.remove(arriving)
        arriving.disconnect()
        return is_answered

    def _close(self) -> None:
        """Send what is left to be sent, then close."""
        is_refused = self._last is not None or self._arriving is not None
        self._close_after(self._last, may_send_on=is_refused)
