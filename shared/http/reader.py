"""Parses the bytes of a connection into requests: httptools' parser, with bounds and without upgrades."""

from typing import Final, NoReturn

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from shared.http import rtsp
from shared.http.refusals import Refusal
from shared.http.target import origin_form

HEADERS_MAX: Final = 100

DIGITS_MAX: Final = 4_000
"""The most digits of a content-length. A shorter head can't hold more, so it is not searched for one."""

FRAMING_PER_BYTE: Final = 8
"""The bytes of chunk sizes, line ends and extensions that a body may have for each of its own bytes, beside one
head's worth. Chunks of one byte need five.
"""

_SLASH: Final = ord("/")
_OTHER_METHODS: Final = frozenset((b"CONNECT", b"SOURCE"))
"""CONNECT asks for a tunnel. SOURCE belongs to ICE, whose version the parser mistakes for one of HTTP."""
_VERSIONS: Final = frozenset(("1.1", "1.0"))


class Request:
    """A parsed request: its head, and the part of its body that has arrived and was not consumed."""

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
        """Take the request line, the headers, whether another request may follow, and the size of the head."""
        self.method: Final = method
        self.target: Final = target
        """The path and the query as they were sent; an absolute target is reduced to them."""
        self.headers: Final = headers
        """Lower-case names, and values."""
        self.is_older_client = False
        """Whether the client speaks HTTP/1.0, to which RFC 9110 forbids `100 Continue`."""
        self.keep_alive: Final = keep_alive
        self.body: bytes | bytearray = b""
        self.held_bytes = head_bytes
        """The size of the head and of the body so far, consumed or not."""
        self.is_admitted = False
        """Whether the interceptor has admitted it, so that the application need not decide again."""
        self.is_whole = False
        self.is_discarded = False
        """Whether the rest of the body is dropped, because the reply was sent without it."""

    @property
    def path(self) -> bytes:
        """The path as it was sent, without the query."""
        return self.target.partition(b"?")[0]

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for `100 Continue` before it sends the body."""
        return not self.is_older_client and any(
            name == b"expect" and value.lower() == b"100-continue" for name, value in self.headers
        )

    def add(self, piece: bytes) -> None:
        """Append to the body. It is one buffer, because pieces may be as small as a byte."""
        if isinstance(self.body, bytes):
            self.body = bytearray(self.body)
        self.body += piece

    def take_body(self) -> bytes:
        """Return and remove the part of the body that has arrived since the last call."""
        taken, self.body = bytes(self.body), b""
        return taken


class RequestReader:
    """Reads the requests of one connection. Its `on_...` methods are the parser's callbacks.

    RFC 9110 (7.8) lets a server ignore an offer to upgrade to another protocol and read the request as if there
    were none. The parser, though, takes the bytes after such a head for the other protocol, not for a body. So
    that head is parsed once more, by a new parser and without its Upgrade header.
    """

    def __init__(self, head_bytes_max: int, pipelined_requests_max: int) -> None:
        """Take the bounds on a head, and on the requests that arrive before earlier ones are answered."""
        self._head_bytes_max: Final = head_bytes_max
        self._pipelined_requests_max: Final = pipelined_requests_max
        self._parser: HttpRequestParser | None = HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        """The size of the target and the headers read so far."""
        self._line_end = b""
        """The last bytes received, where they may belong to an unfinished request line."""
        self._offers_upgrade = False
        self._made_progress = self._begins_packet = False
        self._refusal: Refusal | None = None
        self._unfinished_bytes = 0
        """At least the bytes of the unfinished head; within a body, the bytes since its last piece.

        For a head that follows another request in a packet, this leaves out its bytes in that packet.
        """
        self._packet_bytes = self._framing_bytes = 0
        """`_packet_bytes` counts the bytes of this packet that became part of a request. `_framing_bytes` counts the
        framing of the current body, minus the allowance that its own bytes earn.
        """
        self._unanswered = 0
        self.pending_bytes = 0
        """At most the bytes that the parser holds of an unfinished head or trailer."""
        self.is_in_head = False
        self.unfinished: Request | None = None
        """The request whose body has not ended."""
        self.requests: list[Request] = []
        """The requests read by the last call of `feed`, in order; the last one may be unfinished."""

    def feed(self, data: bytes, unanswered: int) -> Refusal | None:
        """Parse bytes into `requests`; return the reason if no more can be read from this connection.

        `unanswered` is the number of earlier requests that still wait for their replies.
        """
        assert self._parser is not None  # noqa: S101
        self.requests = []
        self._unanswered = unanswered
        self._made_progress = False
        self._begins_packet = not self.is_in_head and self.unfinished is None
        self._unfinished_bytes += len(data)
        self._packet_bytes = 0
        line_end = self._line_end
        if line_end or rtsp.NAME in data:
            self._line_end = b""
            self._parse_up_to_rtsp(line_end + data, len(line_end))
        else:
            self._parse(data)
        if self._refusal is None and (self.is_in_head or self.unfinished is not None):
            if self.is_in_head and not self._headers:
                self._line_end = (line_end + data)[-rtsp.LINE_END_BYTES :]
            self._check_bounds(len(data))
        else:
            self._unfinished_bytes = self.pending_bytes = 0
        return self._refusal

    def close(self) -> None:
        """Drop the parser: it and this reader refer to each other, which would keep both in memory."""
        self._parser = self.unfinished = None
        self.requests = []

    def _parse(self, data: bytes) -> None:
        assert self._parser is not None  # noqa: S101
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade as offer:
            self._parse_past_upgrade(memoryview(data)[offer.args[0] :])
        except HttpParserError:
            self._refusal = self._refusal or Refusal.BAD_REQUEST

    def _parse_up_to_rtsp(self, seen: bytes, begin: int) -> None:
        """Parse `seen` from `begin` on, and refuse an RTSP request line."""
        if seen.count(rtsp.NAME) > rtsp.NAMES_MAX:
            self._refusal = Refusal.BAD_REQUEST
            return
        for piece, line in rtsp.pieces_of(seen, begin):
            self._parse(piece)
            if self.is_in_head and not self._headers and rtsp.ends_with_target(line, self._target):
                self._refusal = Refusal.BAD_REQUEST
            if self._refusal is not None:
                return

    def _parse_past_upgrade(self, rest: memoryview) -> None:
        """Parse the bytes after a head that offers an upgrade; requests among them may offer one again."""
        try:
            while True:
                head = self._head_without_upgrade()
                self._target, self._offers_upgrade, self._head_bytes = b"", False, 0
                self._unanswered -= 1  # the same request is counted again
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

    def _head_without_upgrade(self) -> bytes:
        assert self._parser is not None  # noqa: S101
        version = self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self._target, version)]
        lines += [b"%s: %s" % header for header in self._headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _check_bounds(self, fed: int) -> None:
        """Refuse a head, trailer or chunk extension that exceeds its bound before it has ended.

        How much of a packet belongs to a head is known only if the head begins the packet or fills it.
        """
        if self._made_progress:
            self._unfinished_bytes = fed if self.is_in_head and self._begins_packet and not self.requests else 0
            self.pending_bytes = 0
        rest = max(0, fed - self._packet_bytes)
        self.pending_bytes += rest
        if self.unfinished is not None and not self.requests:  # the whole packet belongs to its body
            self._framing_bytes += rest - FRAMING_PER_BYTE * self._packet_bytes
        if max(self._unfinished_bytes, self._framing_bytes) > self._head_bytes_max or len(self._headers) > HEADERS_MAX:
            self._refusal = Refusal.HEAD_BYTES
        elif self.unfinished is not None:
            self._headers = []  # trailers come after the reply may have begun, so they are dropped

    def _refuse(self, refusal: Refusal) -> NoReturn:
        """Stop the parser by an exception, which is the only way that a callback has."""
        self._refusal = refusal
        raise ValueError(refusal)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._unanswered += 1
        if self._unanswered > self._pipelined_requests_max:
            self._refuse(Refusal.PIPELINED_REQUESTS)
        self.is_in_head = self._made_progress = True
        if self._headers:  # trailers of the previous request
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
        """Create the request, unless its head has to be parsed again without its upgrade offer."""
        parser, target, headers = self._parser, self._target, self._headers
        assert parser is not None  # noqa: S101
        if self._head_bytes > DIGITS_MAX or len(headers) > HEADERS_MAX:
            self._check_head()
        method, version = parser.get_method(), parser.get_http_version()
        if target[0] != _SLASH:
            target = origin_form(target)
        if version not in _VERSIONS or not target or method in _OTHER_METHODS:
            self._refuse(Refusal.BAD_REQUEST)
        if parser.should_upgrade():
            self._offers_upgrade = True
            return
        self.is_in_head = False
        keeps_alive = version == "1.1" and parser.should_keep_alive()
        self.unfinished = Request(method, target, headers, keeps_alive, self._head_bytes)
        self.unfinished.is_older_client = version == "1.0"
        self.requests.append(self.unfinished)
        self._packet_bytes += self._head_bytes
        self._framing_bytes = 0
        self._target, self._headers = b"", []

    def _check_head(self) -> None:
        """Refuse a complete head that is too long, or whose content-length has too many digits."""
        if self._head_bytes > self._head_bytes_max or len(self._headers) > HEADERS_MAX:
            self._refuse(Refusal.HEAD_BYTES)
        if any(len(value) > DIGITS_MAX for name, value in self._headers if name == b"content-length"):
            self._refuse(Refusal.BAD_REQUEST)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._made_progress = True
        self._packet_bytes += len(piece)
        request = self.unfinished
        if request is not None and not request.is_discarded:
            request.held_bytes += len(piece)
            if request.body:
                request.add(piece)
            else:
                request.body = piece

    def on_message_complete(self) -> None:
        """Mark the request as whole, unless its head has to be parsed again."""
        if not self._offers_upgrade and self.unfinished is not None:
            self.unfinished.is_whole = True
            self.unfinished = None
