"""Serving HTTP, the same way for every process that does: uvicorn, a bounded body, an end that drains."""

import signal
from typing import Final

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp

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
        timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
    )
    for sign in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises the signal again when it has drained
        signal.signal(sign, lambda _sign, _frame: None)
    await uvicorn.Server(config).serve()


async def read_body(request: Request, bytes_max: int) -> bytes | None:
    """Return the body, or None as soon as it exceeds the bound."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > bytes_max:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            return None
    return bytes(body)
