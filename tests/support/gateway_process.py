"""A `python -m gateway` process with the demonstration's settings, to be attacked on its real port."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families

from gateway.operations import METRICS_STAND_SECONDS
from gateway.providers import build
from gateway.providers.contract import Callback, Win
from shared.money import Currencies
from tests.client import Response, connect, http_bytes, read_response
from tests.commands import INHERITED, ROOT, until_ready
from tests.servers.server import free_ports

_KLAS: Final = build("klas", {"provider": "klas", "secrets": ["klas-demo-secret"]}, Currencies())
_HPGAMES: Final = build(
    "hpgames",
    {
        "provider": "hpgames",
        "secrets": ["hpgames-demo-secret"],
        "merchant_id": "1387a6cc-3651-4473-ae52-e415caea3395",
    },
    Currencies(),
)

REPLY_WITHIN_SECONDS: Final = 20
"""Far more than any reply takes; an attack that silences the gateway fails by it."""


class GatewayProcess(NamedTuple):
    """A gateway that serves a player's wins on an embedded ledger."""

    url: str
    operations_url: str
    log: Path
    pid: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection to it."""
        return await connect(self.url)

    async def send(self, *packets: bytes) -> bytes:
        """Send packets on a connection, close its sending side, and return all that comes until its end."""
        reader, writer = await self.connect()
        try:
            for packet in packets:
                writer.write(packet)
                await writer.drain()
                await asyncio.sleep(0.02)  # so that each is received by itself
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), REPLY_WITHIN_SECONDS)
        finally:
            writer.close()

    async def win(self) -> None:
        """Send an honest win on a connection of its own, and see it paid."""
        reader, writer = await self.connect()
        try:
            writer.write(http_bytes("klas", a_win()))
            assert_paid(await asyncio.wait_for(read_response(reader), REPLY_WITHIN_SECONDS))
        finally:
            writer.close()

    async def refused(self, reason: str) -> float:
        """Return how many connections were refused for a reason, as /metrics says."""
        await asyncio.sleep(METRICS_STAND_SECONDS)  # so that it is made anew
        reader, writer = await connect(self.operations_url)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: gateway\r\n\r\n")
        exposition = (await read_response(reader)).body.decode()
        writer.close()
        return sum(
            sample.value
            for family in text_string_to_metric_families(exposition)
            for sample in family.samples
            if sample.name == "credits_gateway_connections_refused_total"
            and sample.labels["reason"] == reason
        )

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    async def until_logged(self, reason: str) -> list[dict[str, Any]]:
        """Return the lines about refusals for a reason, once there are any."""
        async with asyncio.timeout(REPLY_WITHIN_SECONDS):
            while not (lines := [line for line in self.logged() if line.get("reason") == reason]):
                await asyncio.sleep(0.05)
        return lines

    def memory_bytes(self) -> int:
        """Return how much memory it has."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


def a_win() -> Callback:
    """Return a new win of the demonstration's player, signed."""
    return _KLAS.compose(Win(str(uuid4()), "player01", "demo-session"))


def bulk_bytes(items: int) -> bytes:
    """Return so many new wins of the demonstration's player in one signed request of hpgames."""
    wins = [
        _HPGAMES.compose(Win(str(uuid4()), "player01", "demo-session", "0.01")).body for _ in range(items)
    ]
    body = b'{"creditRequests":[' + b",".join(wins) + b"]}"
    return http_bytes("hpgames", Callback("bulkCredit", body, {"content-type": "application/json"}))


def win_bytes(*headers: str) -> bytes:
    """Return a new win as it is sent, with further headers."""
    callback = a_win()
    lines = "".join(f"{header}\r\n" for header in headers)
    head, _, body = http_bytes("klas", callback).partition(b"\r\n\r\n")
    return head + b"\r\n" + lines.encode() + b"\r\n" + body


async def responses(received: bytes) -> list[Response]:
    """Return the responses that came on a connection until it ended."""
    reader = asyncio.StreamReader()
    reader.feed_data(received)
    reader.feed_eof()
    read = []
    while not reader.at_eof():
        read.append(await read_response(reader))
    return read


def assert_paid(response: Response) -> None:
    """See that a reply says 'paid'."""
    assert (response.status, response.json["status_code"]) == (200, "OK"), response


@asynccontextmanager
async def gateway_process(
    directory: Path, files_max: int | None = None, **settings: object
) -> AsyncIterator[GatewayProcess]:
    """Start a gateway with some of `[gateway]`'s settings, and as many open files as it may have."""
    port, operations_port = free_ports(2)
    log = directory / "gateway.log"
    environment = {
        **_environment(directory),
        "CREDITS_GATEWAY__PORT": str(port),
        "CREDITS_GATEWAY__OPERATIONS_PORT": str(operations_port),
        **{f"CREDITS_GATEWAY__{name.upper()}": str(value) for name, value in settings.items()},
    }
    command = _with_files([sys.executable, "-m", "gateway", "demo"], files_max)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=output
        )
    try:
        url, operations_url = (f"http://127.0.0.1:{each}" for each in (port, operations_port))
        await until_ready(process, operations_url)
        yield GatewayProcess(url, operations_url, log, process.pid)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0, log.read_text()[-3_000:]
        assert "Traceback" not in log.read_text(), log.read_text()[-3_000:]


@asynccontextmanager
async def operator_process(directory: Path, files_max: int | None = None) -> AsyncIterator[str]:
    """Start the operator API on the database of a gateway there; yield its URL."""
    (port,) = free_ports(1)
    environment = {**_environment(directory), "CREDITS_OPERATOR__PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        *_with_files([sys.executable, "-m", "worker", "operator"], files_max),
        cwd=ROOT,
        env=environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await until_ready(process, url)
        yield url
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0


def _with_files(command: list[str], files_max: int | None) -> list[str]:
    return command if files_max is None else ["sh", "-c", f'ulimit -n {files_max}; exec "$@"', "sh", *command]


def _environment(directory: Path) -> dict[str, str]:
    return {
        **INHERITED,
        "CREDITS_CONFIG": "gateway/demo.toml",
        "CREDITS_LEDGER__DATABASE_URL": f"sqlite+aiosqlite:///{directory}/credits.db",
        "CREDITS_LOG__FORMAT": "json",
    }
