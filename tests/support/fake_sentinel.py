"""A sentinel that says what a test has it say: real ones agree with one another within seconds."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass


@dataclass(slots=True)
class FakeSentinel:
    """What a sentinel answers, and how often it was asked."""

    primary: tuple[str, int]
    config_epoch: int = 0
    answer: bytes | None = None
    """In the place of all others; empty for none at all."""

    looks: int = 0
    port: int = 0

    def reply_to(self, request: bytes) -> bytes:
        """Return the answer to one command."""
        if self.answer is not None:
            return self.answer
        if b"GET-MASTER-ADDR-BY-NAME" in request:
            return _array(self.primary[0], str(self.primary[1]))
        return _array("name", "mymaster", "flags", "master", "config-epoch", str(self.config_epoch))


def _array(*texts: str) -> bytes:
    strings = "".join(f"${len(text)}\r\n{text}\r\n" for text in texts)
    return f"*{len(texts)}\r\n{strings}".encode()


@asynccontextmanager
async def fake_sentinel(
    primary: tuple[str, int],
    config_epoch: int = 0,
    *,
    answer: bytes | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[FakeSentinel]:
    """Serve as a sentinel that names a primary."""
    sentinel = FakeSentinel(primary, config_epoch, answer)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sentinel.looks += 1
        with suppress(OSError):
            while request := await reader.read(65_536):
                writer.write(sentinel.reply_to(request))
        writer.close()

    server = await asyncio.start_server(serve, "localhost", 0, ssl=tls, family=2)
    async with server:
        sentinel.port = server.sockets[0].getsockname()[1]
        yield sentinel


def url_of(*sentinels: FakeSentinel) -> str:
    """Return the cache's URL by these sentinels."""
    return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in sentinels)}/mymaster/0"
