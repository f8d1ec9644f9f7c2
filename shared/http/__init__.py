"""HTTP/1.1 as every process here serves it: bounded in bytes, time and number, and drained when it ends."""

from shared.http.body import read_body, response_bytes
from shared.http.door import Door, is_admitted
from shared.http.reader import Request
from shared.http.refusals import RefusalLog
from shared.http.server import allow_connections, serve, serving
from shared.http.trust import is_sender_trusted, trust_sender

__all__ = [
    "Door",
    "RefusalLog",
    "Request",
    "allow_connections",
    "is_admitted",
    "is_sender_trusted",
    "read_body",
    "response_bytes",
    "serve",
    "serving",
    "trust_sender",
]
