"""Serving HTTP, the same way for every process that does: uvicorn, a bounded body, an end that drains."""

import signal
from collections.abc import Mapping
from typing import Final

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive

from shared.garbage import search_seldom

DRAIN_SECONDS_MAX: Final = 15


async def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT; requests that are under way are answered first."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http="httptools",
        ws="none",
        lifespan="off",  # what the application needs is opened by the caller, where a fault becomes one line
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody asks who the client is
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(sign, lambda _sign, _frame: None)
    search_seldom()
    await uvicorn.Server(config).serve()


async def read_body(receive: Receive, headers: Mapping[str, str], bytes_max: int) -> bytes | None:
    """Return the body, or None as soon as it exceeds the bound. Raises ClientDisconnect."""
    announced = headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > bytes_max:
        return None
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > bytes_max:
            return None
        more = message.get("more_body", False)
    return body
