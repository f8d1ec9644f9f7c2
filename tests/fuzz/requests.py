"""Bytes that are nearly HTTP: one request or several, with faults in their structure, in packets."""

import random
from collections.abc import Sequence
from typing import Final

METHODS: Final = [b"POST"] * 100 + [b"GET", b"HEAD", b"CONNECT", b"post", b"PRI", b"OPTIONS", b"", b"P OST"]
TARGETS: Final = [b"/klas/credit"] * 50 + [
    b"/gpas/movements/credit?walletSessionId=1",
    b"/open",
    b"//klas/credit",
    b"/klas/cr%65dit",
    b"http://x/klas/credit",
    b"https://x",
    b"http:///klas/credit",
    b"http://x?a/b",
    b"*",
    b"x:443",
    b"/a#b",
    b"/\xff",
    b"",
]
VERSIONS: Final = [b"HTTP/1.1"] * 100 + [
    b"HTTP/1.0",
    b"HTTP/2.0",
    b"HTTP/0.9",
    b"HTTP/1.2",
    b"http/1.1",
    b"",
    b"ICE/1.0",
    b"RTSP/1.0",
    b" RTSP/1.1",
]
ENDS: Final = [b"\r\n"] * 400 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\r\n\t", b"", b" \r\n"]
COLONS: Final = [b": "] * 300 + [b":", b" : ", b":\t", b"", b":\0", b": \x0b"]
HEADERS: Final[Sequence[tuple[bytes, bytes]]] = [
    *[(b"Host", b"gateway"), (b"X-Signature", b"0123456789abcdef"), (b"Content-Type", b"application/json")] * 30,
    (b"X-Signature", b""),
    (b"Connection", b"close"),
    (b"Connection", b"keep-alive"),
    (b"Connection", b"Upgrade, HTTP2-Settings"),
    (b"connection", b"upgrade"),
    (b"Upgrade", b"h2c"),
    (b"UPGRADE", b"websocket"),
    (b"Upgrade", b""),
    (b"Expect", b"100-continue"),
    (b"Transfer-Encoding", b"chunked"),
    (b"Transfer-Encoding", b"gzip, chunked"),
    (b"Transfer-Encoding", b"chunked, identity"),
    (b"Transfer-Encoding", b" chunked"),
    (b"Content-Length", b"0"),
    (b"Content-Length", b"2"),
    (b"Content-Length", b"+2"),
    (b"Content-Length", b"2, 2"),
    (b"Content-Length", b"0x2"),
    (b"Content-Length", b"18446744073709551618"),
    (b"Content-Length", b"2 "),
    (b"Content_Length", b"2"),
    (b"X\0", b"y"),
    (b"X", b"y\0z"),
    (b"X", b"\x80\xff"),
    (b"X", b"RTSP/1.0"),
    (b"", b"y"),
    (b"X Y", b"z"),
]
BODIES: Final = [
    b"{}",
    b'{"amount":"10.50","upgrade":1}',
    b"",
    b"POST /hidden HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"POST /hidden RTSP/1.1\r\nContent-Length: 0\r\n\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
]
CHUNKED: Final = [
    b"2\r\n{}\r\n0\r\n\r\n",
    b"1;x=y\r\n{\r\n1\r\n}\r\n0\r\nX-Signature: f\r\n\r\n",
    b"2\n{}\n0\n\n",
    b"0x2\r\n{}\r\n0\r\n\r\n",
    b"2 \r\n{}\r\n0\r\n\r\n",
    b"ffffffffffffffffff\r\n",
    b"0\r\n\r\n",
]
JUNK: Final = [
    b"\0",
    b"\r",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"\xff",
    b"0",
    b"Content-Length: 2\r\n",
    b"\r\n\r\n",
]

PROBE: Final = b"POST /probe HTTP/1.1\r\nContent-Length: 5\r\n\r\nprobe"
"""Ends every input: the state in which it left a connection shows in what becomes of this."""


def packets(chance: random.Random) -> list[bytes]:
    """Return what is sent on one connection, packet by packet."""
    sent = b"".join(_request(chance) for _ in range(chance.choice((1, 1, 1, 2, 3))))
    for _ in range(chance.choice((0, 0, 0, 0, 1, 1, 2))):
        sent = _mutated(sent, chance)
    return [*_cut(sent, chance), PROBE]


def _request(chance: random.Random) -> bytes:
    pick = chance.choice
    lines = [b" ".join((pick(METHODS), pick(TARGETS), pick(VERSIONS))) + pick(ENDS)]
    headers = [pick(HEADERS) for _ in range(pick((0, 1, 1, 2, 3)))]
    if chance.random() < 0.15:
        headers += (b"Connection", b"Upgrade"), (b"Upgrade", pick((b"h2c", b"websocket")))
    body, framing = pick(BODIES), chance.random()
    if framing < 0.7:
        headers.append((b"Content-Length", b"%d" % len(body)))
    elif framing < 0.9:
        headers.append((b"Transfer-Encoding", b"chunked"))
        body = pick(CHUNKED)
    chance.shuffle(headers)
    lines += [name + pick(COLONS) + value + pick(ENDS) for name, value in headers]
    return b"".join(lines) + pick(ENDS) + body


def _mutated(sent: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(sent) + 1)
    match chance.randrange(4):
        case 0:
            return sent[:at] + chance.choice(JUNK) + sent[at:]
        case 1:
            return sent[:at] + sent[at + chance.randrange(1, 4) :]
        case 2:
            return sent[:at] + bytes((chance.randrange(256),)) + sent[at + 1 :]
        case _:
            return sent[:at]


def _cut(sent: bytes, chance: random.Random) -> list[bytes]:
    match chance.randrange(8):
        case 0 | 1:
            places = sorted(chance.randrange(len(sent) + 1) for _ in range(chance.randrange(1, 4)))
        case 2 if len(sent) < 200:
            places = list(range(len(sent)))
        case _:
            places = []
    pieces = [sent[begin:end] for begin, end in zip([0, *places], [*places, len(sent)], strict=True)]
    return [piece for piece in pieces if piece]
