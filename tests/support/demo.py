"""The demonstration and the operator API beside it, as a newcomer starts them, on a database and ports of their own."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tests.support.commands import INHERITED, until_ready
from tests.support.paths import ROOT
from tests.support.servers.server import free_ports


class Demo(NamedTuple):
    """A running demonstration, and the lines that it prints for pasting."""

    url: str
    operations_url: str
    lines: list[str]


def environment(database: Path, **settings: str) -> dict[str, str]:
    return {
        **INHERITED,
        "CREDITS_CONFIG": "gateway/demo.toml",
        "CREDITS_LEDGER__DATABASE_URL": f"sqlite+aiosqlite:///{database}",
        "PYTHONUNBUFFERED": "1",
        **settings,
    }


@asynccontextmanager
async def demo(database: Path) -> AsyncIterator[Demo]:
    port, operations_port = free_ports(2)
    ports = {
        "CREDITS_GATEWAY__PORT": str(port),
        "CREDITS_GATEWAY__OPERATIONS_PORT": str(operations_port),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        "demo",
        cwd=ROOT,
        env=environment(database, **ports),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        lines = []
        while not (line := (await process.stdout.readline()).decode()).startswith("Serving"):
            assert line, "the demonstration ended"
            _, writer = await asyncio.open_connection("127.0.0.1", port)  # whatever it prints, it serves
            writer.close()
            lines += [line.strip()] if line.startswith("curl ") else []
        told = re.fullmatch(r"/healthz, .* on (http://.*)\.\n", (await process.stdout.readline()).decode())
        assert told
        await until_ready(process, told[1])
        yield Demo(f"http://127.0.0.1:{port}", told[1], lines)
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


@asynccontextmanager
async def operator_api(database: Path) -> AsyncIterator[str]:
    """Start the operator API beside the demonstration; yield its URL."""
    (port,) = free_ports(1)
    beside = environment(database, CREDITS_OPERATOR__PORT=str(port))
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "worker", "operator", cwd=ROOT, env=beside)
    try:
        url = f"http://127.0.0.1:{port}"
        await until_ready(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


async def paste(line: str, settings: Mapping[str, str] | None = None) -> str:
    """Run a line in a shell, as a person would, with these variables if there are any."""
    shell = await asyncio.create_subprocess_shell(line, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env=settings)
    output, _ = await shell.communicate()
    assert shell.returncode == 0
    return output.decode()
