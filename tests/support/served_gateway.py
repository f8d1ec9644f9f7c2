"""A gateway as a process of its own, its ledger embedded on SQLite: what an attacker sees of the product."""

import asyncio
import json
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from gateway.ledger_client.embedded import prepare
from gateway.providers import build
from gateway.providers.contract import Callback, Provider, Win
from shared.money import Currencies
from shared.settings import Settings
from tests.client import Response
from tests.commands import INHERITED, ROOT, until_ready
from tests.servers.server import free_ports
from tests.simulator.history import Said
from tests.simulator.replies import told
from tests.system import INTEGRATIONS

PLAYER: Final = "player01"
SESSION: Final = "session-1"
ENDS_WITHIN_SECONDS: Final = 30

PROVIDERS: Final[Mapping[str, Provider[Any, Any]]] = {
    name: build(name, table, Currencies()) for name, table in INTEGRATIONS.items()
}


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """A running `python -m gateway`, with one player who has a session."""

    process: asyncio.subprocess.Process
    url: str
    operations_url: str
    database: Path
    log: Path

    def posted(self) -> int:
        """Return how many transfers its books hold."""
        with sqlite3.connect(self.database) as books:
            return int(books.execute("SELECT count(*) FROM transfers").fetchone()[0])

    def logged(self) -> list[dict[str, Any]]:
        """Return the lines of its log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def end(self) -> int:
        """End it as an orchestrator does; return its exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), ENDS_WITHIN_SECONDS)


def win(integration: str) -> Callback:
    """Return a signed win that nobody has sent yet."""
    return PROVIDERS[integration].compose(Win(str(uuid4()), PLAYER, SESSION))


def is_paid(integration: str, response: Response) -> bool:
    """Tell whether the reply says to the provider that its win is paid."""
    return told(PROVIDERS[integration], "EUR", response)[0] is Said.PAID


def environment_of(directory: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a gateway whose books are in the directory; no settings file is read."""
    integrations = {
        f"CREDITS_INTEGRATIONS__{name.upper()}__{key.upper()}": value
        for name, table in INTEGRATIONS.items()
        for key, value in table.items()
    }
    port, operations_port = free_ports(2)
    return {
        **INHERITED,
        **integrations,
        "CREDITS_CONFIG": "",
        "CREDITS_LOG__FORMAT": "json",
        "CREDITS_LEDGER__DATABASE_URL": f"sqlite+aiosqlite:///{directory}/credits.db",
        "CREDITS_GATEWAY__PORT": str(port),
        "CREDITS_GATEWAY__OPERATIONS_PORT": str(operations_port),
        **settings,
    }


@asynccontextmanager
async def gateway_process(directory: Path, **settings: str) -> AsyncIterator[GatewayProcess]:
    """Start a gateway with these environment variables beside its own; end it with the block."""
    environment = environment_of(directory, **settings)
    ledger = {"database_url": environment["CREDITS_LEDGER__DATABASE_URL"]}
    given = Settings.model_validate({"ledger": ledger, "integrations": INTEGRATIONS})
    await prepare(given, PLAYER, "EUR", SESSION)
    log = directory / "gateway.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    scheme = "https" if "CREDITS_GATEWAY__TLS_KEY" in settings else "http"
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
        await running.end()


async def start_in_vain(environment: Mapping[str, str], *arguments: str) -> tuple[int, list[str]]:
    """Start `python -m ARGUMENTS`, by default the gateway; return its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *(arguments or ("gateway",)),
        cwd=ROOT,
        env=dict(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), ENDS_WITHIN_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = [line for line in err.decode().splitlines() if line.startswith(("credits: ", "error: "))]
    assert b"Traceback" not in out + err
    return process.returncode or 0, said
