"""A small HTTP client for load: kept-alive connections, raw requests made in advance, no retries."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from gateway.providers.base import Callback


class Response(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    """By lower-case name."""

    @property
    def status_code(self) -> int:
        """The status, by httpx's name for it."""
        return self.status

    @property
    def content(self) -> bytes:
        """The body, by httpx's name for it."""
        return self.body

    @property
    def json(self) -> Any:
        """The body's content."""
        return json.loads(self.body)


def http_bytes(integration: str, callback: Callback) -> bytes:
    """Return the bytes of a provider's HTTP request."""
    target = f"/{integration}/{callback.path}" + ("?" + urlencode(callback.query) if callback.query else "")
    headers = {"host": "gateway", **callback.headers, "content-length": str(len(callback.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode() + callback.body


async def send_all(url: str, requests: Sequence[bytes], connections: int) -> list[Response]:
    """Send requests over this number of connections, each as soon as one is free; return the responses in order."""
    responses: list[Response | None] = [None] * len(requests)
    numbered = iter(enumerate(requests))

    async def work() -> None:
        reader, writer = await connect(url)
        try:
            for n, request in numbered:
                writer.write(request)
                responses[n] = await read_response(reader)
        finally:
            writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(work())
    return [response for response in responses if response is not None]


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to a gateway."""
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def read_response(reader: asyncio.StreamReader) -> Response:
    """Read one response."""
    status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    named = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in named}
    body = await reader.readexactly(int(headers["content-length"]))
    return Response(int(status_line.split()[1]), body, headers)
