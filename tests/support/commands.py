"""The commands as operators and their scripts call them, each a process of its own."""

import json
import os
import subprocess
from asyncio import sleep, timeout, to_thread
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import httpx
import pytest

from tests.support import fork_server
from worker.cli.exit_codes import ExitCode

ON_SQLITE: Final = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CONFIGURED: Final = {
    "CREDITS_INTEGRATIONS__KLAS__PROVIDER": "klas",
    "CREDITS_INTEGRATIONS__ACE__PROVIDER": "igamingace",
}

INHERITED: Final = {name: value for name, value in os.environ.items() if not name.startswith("CREDITS_")}
"""The environment without anybody's own settings."""

READY_WITHIN_SECONDS: Final = 30

Run = Callable[..., Awaitable["Ended"]]


class Ended:
    """A command that has ended."""

    def __init__(self, process: subprocess.CompletedProcess[str]) -> None:
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr

    def __repr__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"

    def json(self) -> Any:
        assert self.out.count("\n") == 1
        return json.loads(self.out)

    def error(self, code: ExitCode) -> str:
        """Return the one line that says what is wrong."""
        assert self.code == code, self
        *_, last = self.err.splitlines()
        assert last.startswith("error: "), self
        assert "Traceback" not in self.err
        return last


async def run(database_url: str, *arguments: str, **environment: str) -> Ended:
    """Run `python -m worker` on a database, with nothing set but what is given."""
    settings = {"CREDITS_CONFIG": "", "CREDITS_LEDGER__DATABASE_URL": database_url, **environment}
    return await run_with(settings, *arguments)


async def run_with(settings: Mapping[str, str], *arguments: str) -> Ended:
    """Run `python -m worker` with these settings as variables, and with no database but what they name."""
    return Ended(await to_thread(fork_server.run, "worker", arguments, {**INHERITED, **settings}, 60))


async def until_ready(process: Process, url: str, client: httpx.AsyncClient | None = None) -> None:
    """Return when the process answers at `url` that it is ready; `client` knows its CA, if it has one."""
    async with client or httpx.AsyncClient() as asking, timeout(READY_WITHIN_SECONDS):
        while True:
            assert process.returncode is None, "the process ended"
            try:
                assert (await asking.get(f"{url}/readyz")).json() == {"status": "ready"}
            except httpx.TransportError:
                await sleep(0.05)
            else:
                return
