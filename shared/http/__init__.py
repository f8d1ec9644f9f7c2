"""An HTTP/1.1 server with bounds on bytes, time and connections, which drains before it stops."""

from shared.http.body import read_body, response_bytes
from shared.http.interceptor import Interceptor, is_admitted
from shared.http.reader import Request
from shared.http.refusals import RefusalLog
from shared.http.server import raise_file_limit, serve, serving
from shared.http.trust import is_sender_trusted, trust_sender

__all__ = [
    "Interceptor",
    "RefusalLog",
    "Request",
    "is_admitted",
    "is_sender_trusted",
    "raise_file_limit",
    "read_body",
    "response_bytes",
    "serve",
    "serving",
    "trust_sender",
]
