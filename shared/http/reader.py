"""From the bytes of a connection to requests: httptools' parser, bounded, and without upgrades."""

from typing import Final, NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from shared.http import rtsp
from shared.http.refusals import Refusal
from shared.http.target import origin_form

HEADERS_MAX: Final = 100

DIGITS_MAX: Final = 4_000
"""Of an announced length. In a head that is shorter than that as a whole nobody looks for it."""

FRAMING_PER_BYTE: Final = 8
"""Bytes of chunks' lengths, ends and extensions that a body may have for each of its own, and a head's worth
besides. Chunks of a byte have five."""

_SLASH: Final = ord("/")
_OTHER_METHODS: Final = frozenset((b"CONNECT", b"SOURCE"))
"""Of tunnels, and of ICE, whose version the parser takes for one of HTTP."""
_VERSIONS: Final = frozenset(("1.1", "1.0"))


class Request:
    """A request as it was parsed: the head, and as much of the body as has come and was not taken."""

    __slots__ = (
        "body",
        "headers",
        "held_bytes",
        "is_admitted",
        "is_discarded",
        "is_older_client",
        "is_whole",
        "keep_alive",
        "method",
        "target",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        keep_alive: bool,  # noqa: FBT001
        head_bytes: int = 0,
    ) -> None:
        """Take the request line, the headers, whether another request may follow, and how long they are."""
        self.method: Final = method
        self.target: Final = target
        """The path and the query, as they were sent; of an absolute target only these."""
        self.headers: Final = headers
        """Names, in lower case, and values."""
        self.is_older_client = False
        """Whether it speaks HTTP/1.0, whose clients RFC 9110 has nobody tell to go on."""
        self.keep_alive: Final = keep_alive
        self.body: bytes | bytearray = b""
        self.held_bytes = head_bytes
        """Of the head and of the body so far, taken or not."""
        self.is_admitted = False
        """Whether the door has decided to let it through, so that the application need not decide again."""
        self.is_whole = False
        self.is_discarded = False
        """Whether what is left of the body is of no use, because the reply was sent without it."""

    @property
    def path(self) -> bytes:
        """The path as it was sent, without the query."""
        return self.target.partition(b"?")[0]

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits to be told to go on before it sends the body."""
        return not self.is_older_client and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )

    def add(self, piece: bytes) -> None:
        """Add to the body. Pieces may be as small as a byte, so they are not kept apart."""
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += piece

    def take(self) -> bytes:
        """Return what came of the body since it was last taken."""
        taken, self.body = bytes(self.body), b""
        return taken


class RequestReader:
    """Reads the requests of one connection. Its methods named `on_...` are the parser's callbacks.

    RFC 9110 lets a server ignore an offer to upgrade to another protocol, and its section 7.8 has it read the
    request as if there were none. The parser takes what follows such a head for the other protocol instead of
    a body. So that head is parsed once more, by a new parser and without its Upgrade header.
    """

    def __init__(self, head_bytes_max: int, pipelined_requests_max: int) -> None:
        """Take the bounds: on a head, and on requests that come before earlier ones are answered."""
        self._head_bytes_max: Final = head_bytes_max
        self._pipelined_requests_max: Final = pipelined_requests_max
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        """Of the target and the headers that were read."""
        self._line_end = b""
        """The last bytes that came, where they may be of a request line that goes on."""
        self._is_offer = False
        self._has_moved = self._begins_packet = False
        self._refusal: Refusal | None = None
        self._fed = 0
        """At least the bytes of the head that is read; in a body, those since its last piece.

        Of a head that follows another request in a packet, this leaves out what came in that packet."""
        self._packet_bytes = self._framing_bytes = 0
        """Of the packet those that became part of a request; and of the body that is read, its framing, less
        what its own bytes allow for."""
        self._unanswered = 0
        self.pending_bytes = 0
        """At most those that the parser keeps of what has no end yet: a head, a trailer."""
        self.is_in_head = False
        self.unfinished: Request | None = None
        """The request whose body has not come to its end."""
        self.requests: list[Request] = []
        """What was read by the last call of `feed`, in order; the last one may be unfinished."""

    def feed(self, data: bytes, unanswered: int) -> Refusal | None:
        """Read what came into `requests`, and return why no more can be read, if that is so.

        `unanswered` says how many requests that were read before still wait for their replies.
        """
        assert self._parser is not None  # noqa: S101
        self.requests = []
        self._unanswered = unanswered
        self._has_moved = False
        self._begins_packet = not self.is_in_head and self.unfinished is None
        self._fed += len(data)
        self._packet_bytes = 0
        before = self._line_end
        if before or rtsp.NAME in data:
            self._line_end = b""
            self._parse_up_to_rtsp(before + data, len(before))
        else:
            self._parse(data)
        if self._refusal is None and (self.is_in_head or self.unfinished is not None):
            if self.is_in_head and not self._headers:
                self._line_end = (before + data)[-rtsp.LINE_END_BYTES :]
            self._bound(len(data))
        else:
            self._fed = self.pending_bytes = 0
        return self._refusal

    def close(self) -> None:
        """Let go of the parser, which refers to this reader and would keep both in memory."""
        self._parser = self.unfinished = None
        self.requests = []

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None  # noqa: S101
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._feed_on(memoryview(data)[offer.args[0] :])
        except HttpParserError:
            self._refusal = self._refusal or Refusal.BAD_REQUEST

    def _parse_up_to_rtsp(self, seen: bytes, begin: int) -> None:
        """Parse `seen` from `begin` on, and refuse a request line of RTSP."""
        if seen.count(rtsp.NAME) > rtsp.NAMES_MAX:
            self._refusal = Refusal.BAD_REQUEST
            return
        for piece, line in rtsp.pieces_of(seen, begin):
            self._parse(piece)
            if self.is_in_head and not self._headers and rtsp.ends_with_target(line, self._target):
                self._refusal = Refusal.BAD_REQUEST
            if self._refusal is not None:
                return

    def _feed_on(self, rest: memoryview) -> None:
        """Parse what follows a head that offers an upgrade; requests in it may offer one again."""
        try:
            while True:
                head = self._head_without_offer()
                self._target, self._is_offer, self._head_bytes = b"", False, 0
                self._unanswered -= 1  # it is counted again
                self._parser = HttpRequestParser(self)
                self._parser.feed_data(head)
                try:
                    self._parser.feed_data(rest)
                except HttpParserUpgrade as offer:
                    rest = rest[offer.args[0] :]
                else:
                    return
        except HttpParserError:
            self._refusal = self._refusal or Refusal.BAD_REQUEST

    def _head_without_offer(self) -> bytes:
        assert self._parser is not None  # noqa: S101
        version = self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self._target, version)]
        lines += [b"%s: %s" % header for header in self._headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _bound(self, fed: int) -> None:
        """Refuse a head, a trailer or a chunk's extension that is too long before it has ended.

        How much of a packet belongs to a head is known where it begins the packet, or fills it.
        """
        if self._has_moved:
            self._fed = fed if self.is_in_head and self._begins_packet and not self.requests else 0
            self.pending_bytes = 0
        rest = max(0, fed - self._packet_bytes)
        self.pending_bytes += rest
        if self.unfinished is not None and not self.requests:  # all of the packet is of its body
            self._framing_bytes += rest - FRAMING_PER_BYTE * self._packet_bytes
        if max(self._fed, self._framing_bytes) > self._head_bytes_max or len(self._headers) > HEADERS_MAX:
            self._refusal = Refusal.HEAD_BYTES
        elif self.unfinished is not None:
            self._headers = []  # trailers: nobody who has begun to answer could believe them

    def _refuse(self, refusal: Refusal) -> NoReturn:
        """End the parsing: an exception is how a callback says so."""
        self._refusal = refusal
        raise ValueError(refusal)

    def on_message_begin(self) -> None:
        """Begin with a request."""
        self._unanswered += 1
        if self._unanswered > self._pipelined_requests_max:
            self._refuse(Refusal.PIPELINED_REQUESTS)
        self.is_in_head = self._has_moved = True
        if self._headers:  # trailers of the request before
            self._headers = []
        self._head_bytes = 0

    def on_url(self, piece: bytes) -> None:
        """Take the target, or a piece of it."""
        self._target += piece
        self._head_bytes += len(piece)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        self._headers.append((name.lower(), value))
        self._head_bytes += len(name) + len(value) + 4  # with a colon, a space and the line's end

    def on_headers_complete(self) -> None:
        """Take the head as a request, unless it has to be parsed again without its offer."""
        parser, target, headers = self._parser, self._target, self._headers
        assert parser is not None  # noqa: S101
        if self._head_bytes > DIGITS_MAX or len(headers) > HEADERS_MAX:
            self._bound_head()
        method, version = parser.get_method(), parser.get_http_version()
        if target[0] != _SLASH:
            target = origin_form(target)
        if version not in _VERSIONS or not target or method in _OTHER_METHODS:
            self._refuse(Refusal.BAD_REQUEST)
        if parser.should_upgrade():
            self._is_offer = True
            return
        self.is_in_head = False
        keeps_alive = version == "1.1" and parser.should_keep_alive()
        self.unfinished = Request(method, target, headers, keeps_alive, self._head_bytes)
        self.unfinished.is_older_client = version == "1.0"
        self.requests.append(self.unfinished)
        self._packet_bytes += self._head_bytes
        self._framing_bytes = 0
        self._target, self._headers = b"", []

    def _bound_head(self) -> None:
        """Refuse a whole head that is too long, or has a length of too many digits."""
        if self._head_bytes > self._head_bytes_max or len(self._headers) > HEADERS_MAX:
            self._refuse(Refusal.HEAD_BYTES)
        if any(len(value) > DIGITS_MAX for name, value in self._headers if name == b"content-length"):
            self._refuse(Refusal.BAD_REQUEST)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._has_moved = True
        self._packet_bytes += len(piece)
        request = self.unfinished
        if request is not None and not request.is_discarded:
            request.held_bytes += len(piece)
            if request.body:
                request.add(piece)
            else:
                request.body = piece

    def on_message_complete(self) -> None:
        """Note that the request is whole, unless it has to be parsed again."""
        if not self._is_offer and self.unfinished is not None:
            self.unfinished.is_whole = True
            self.unfinished = None
