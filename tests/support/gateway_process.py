"""A gateway as a process of its own, its ledger embedded on SQLite: what an attacker sees of the product."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.ledger_client.embedded import prepare
from gateway.monitoring import METRICS_STAND_SECONDS
from shared.settings import Settings
from simulator.client import connect, read_response
from tests.support import fork_server
from tests.support.commands import INHERITED, until_ready
from tests.support.operator_api import TOKEN
from tests.support.paths import ROOT
from tests.support.servers.server import free_ports
from tests.support.system import INTEGRATIONS
from tests.support.wins import PLAYER, SESSION, assert_paid, win_bytes

ENDS_WITHIN_SECONDS: Final = 30
REPLY_WITHIN_SECONDS: Final = 20
"""Far more than any reply takes; an attack that silences the gateway fails by it."""


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """A running `python -m gateway`, with one player who has a session."""

    process: asyncio.subprocess.Process
    url: str
    operations_url: str
    database: Path
    log: Path

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
            writer.write(win_bytes())
            assert_paid(await asyncio.wait_for(read_response(reader), REPLY_WITHIN_SECONDS))
        finally:
            writer.close()

    def posted(self) -> int:
        """Return how many transfers its books hold."""
        with sqlite3.connect(self.database) as books:
            return int(books.execute("SELECT count(*) FROM transfers").fetchone()[0])

    async def counted(self, name: str, **labels: str) -> float:
        """Return what it has counted under a name and these labels, as /metrics says."""
        await asyncio.sleep(METRICS_STAND_SECONDS)  # so that it is made anew
        async with httpx.AsyncClient() as client:
            exposition = (await client.get(f"{self.operations_url}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(exposition)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def refused(self, reason: str) -> float:
        """Return how many connections were refused for a reason."""
        return await self.counted("credits_gateway_connections_refused_total", reason=reason)

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
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    async def end(self) -> int:
        """End it as an orchestrator does; return its exit code."""
        return await _end(self.process)


def environment_of(directory: Path, **settings: object) -> dict[str, str]:
    """Return the environment of a process on the ledger in the directory; no settings file is read.

    A setting is one of `[gateway]`, or of another table by the name of its variable.
    """
    integrations = {
        f"CREDITS_INTEGRATIONS__{name.upper()}__{key.upper()}": value
        for name, table in INTEGRATIONS.items()
        for key, value in table.items()
    }
    port, operations_port, operator_port = free_ports(3)
    return {
        **INHERITED,
        **integrations,
        "CREDITS_CONFIG": "",
        "CREDITS_LOG__FORMAT": "json",
        "CREDITS_LEDGER__DATABASE_URL": f"sqlite+aiosqlite:///{directory}/credits.db",
        "CREDITS_GATEWAY__PORT": str(port),
        "CREDITS_GATEWAY__OPERATIONS_PORT": str(operations_port),
        "CREDITS_OPERATOR__PORT": str(operator_port),
        "CREDITS_OPERATOR__TOKENS": json.dumps([TOKEN]),
        **{_variable(name): str(value) for name, value in settings.items()},
    }


def _variable(setting: str) -> str:
    return setting if setting.startswith("CREDITS_") else f"CREDITS_GATEWAY__{setting.upper()}"


@asynccontextmanager
async def gateway_process(
    directory: Path, files_max: int | None = None, /, **settings: object
) -> AsyncIterator[GatewayProcess]:
    """Start a gateway with such settings, which may open so many files; end it with the block."""
    environment = environment_of(directory, **settings)
    ledger = {"database_url": environment["CREDITS_LEDGER__DATABASE_URL"]}
    given = Settings.model_validate({"ledger": ledger, "integrations": INTEGRATIONS})
    await prepare(given, PLAYER, "EUR", SESSION)
    log = directory / "gateway.log"
    process = await _start(environment, log, files_max, "gateway")
    scheme = "https" if "CREDITS_GATEWAY__TLS_KEY" in environment else "http"
    running = GatewayProcess(
        process,
        f"{scheme}://127.0.0.1:{environment['CREDITS_GATEWAY__PORT']}",
        f"http://127.0.0.1:{environment['CREDITS_GATEWAY__OPERATIONS_PORT']}",
        directory / "credits.db",
        log,
    )
    try:
        await until_ready(process, running.operations_url)
        yield running
    finally:
        _assert_ended_well(await _end(process), log)


@asynccontextmanager
async def operator_process(
    directory: Path,
    files_max: int | None = None,
    client: httpx.AsyncClient | None = None,
    /,
    **settings: object,
) -> AsyncIterator[str]:
    """Start the operator API on the ledger of a gateway there, and yield its URL; `client` knows its CA."""
    environment, log = environment_of(directory, **settings), directory / "operator.log"
    process = await _start(environment, log, files_max, "worker", "operator")
    scheme = "http" if client is None else "https"
    url = f"{scheme}://127.0.0.1:{environment['CREDITS_OPERATOR__PORT']}"
    try:
        await until_ready(process, url, client)
        yield url
    finally:
        _assert_ended_well(await _end(process), log)


async def start_in_vain(environment: Mapping[str, str], *arguments: str) -> tuple[int, list[str]]:
    """Start `python -m ARGUMENTS`, by default the gateway; return its exit code and what it said."""
    module, *rest = arguments or ("gateway",)
    ended = await asyncio.to_thread(fork_server.run, module, rest, environment, ENDS_WITHIN_SECONDS)
    said = [line for line in ended.stderr.splitlines() if line.startswith(("credits: ", "error: "))]
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended.returncode, said


async def _start(
    environment: Mapping[str, str], log: Path, files_max: int | None, *arguments: str
) -> asyncio.subprocess.Process:
    limit = [] if files_max is None else ["sh", "-c", f'ulimit -n {files_max}; exec "$@"', "sh"]
    command = [*limit, sys.executable, "-m", *arguments]
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=dict(environment), stdout=output, stderr=output
        )


async def _end(process: asyncio.subprocess.Process) -> int:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    return await asyncio.wait_for(process.wait(), ENDS_WITHIN_SECONDS)


def _assert_ended_well(status: int, log: Path) -> None:
    said = log.read_text()
    assert status == 0, said[-3_000:]
    assert "Traceback" not in said, said[-3_000:]
