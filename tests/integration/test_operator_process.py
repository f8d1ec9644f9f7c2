"""The operator API as its users start and ask it: a process, real HTTP, and the command line beside it."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from shared.operations import Kind, Wallet
from simulator.client import connect, read_response
from tests.support.commands import INHERITED, until_ready
from tests.support.credits import win
from tests.support.operator_api import TOKEN, Api, path_of
from tests.support.paths import ROOT
from tests.support.servers.server import free_ports
from worker.cli.exit_codes import ExitCode
from worker.ledger.transaction import Ledger
from worker.players import add_player, open_session

pytestmark = [pytest.mark.slow, pytest.mark.any_server]


class Served:
    """A running `python -m worker operator`."""

    def __init__(self, process: asyncio.subprocess.Process, environment: dict[str, str], url: str) -> None:
        self.process = process
        self.environment = environment
        self.url = url

    async def end(self) -> tuple[int | None, str]:
        """End it as an orchestrator does; return its exit code and log."""
        self.process.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(self.process.communicate(), 30)
        return self.process.returncode, log.decode()


async def start(environment: dict[str, str], *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *arguments,
        cwd=ROOT,
        env={**INHERITED, "CREDITS_CONFIG": "", **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
async def served(engine: AsyncEngine) -> AsyncIterator[Served]:
    """The process on a ledger with player anna, ready."""
    await add_player(engine, "anna", "EUR")
    (port,) = free_ports(1)
    environment = {
        "CREDITS_LEDGER__DATABASE_URL": engine.url.render_as_string(hide_password=False),
        "CREDITS_OPERATOR__PORT": str(port),
        "CREDITS_OPERATOR__TOKENS": '["env:PLATFORM_TOKEN"]',
        "PLATFORM_TOKEN": TOKEN,
    }
    process = await start(environment, "operator")
    try:
        url = f"http://127.0.0.1:{port}"
        await until_ready(process, url)
        yield Served(process, environment, url)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def api(served: Served) -> AsyncIterator[Api]:
    """A client of the process."""
    async with httpx.AsyncClient(base_url=served.url) as client:
        yield Api(client, (await client.get("/openapi.json")).json())


async def test_strange_ids_pass_through_real_http_and_the_process_ends_in_good_order(served: Served, api: Api) -> None:
    for strange in ("a/b", "%2F", "../..", "50%", "玩家?#", "x" * 128):
        path = path_of("players", strange)
        assert (await api.put(path, {"currency": "EUR"})).status_code == 201
        assert (await api.get(path))["player_id"] == strange
    refused = await api.ask("PUT", "/v1/players/ben", content=b" " * 70_000)
    assert refused.json()["code"] == "body_too_large"
    code, log = await served.end()
    assert (code, "operator API stopped" in log) == (0, True)
    assert "Traceback" not in log
    assert TOKEN not in log


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_bytes_that_are_no_http_harm_nobody(served: Served, api: Api) -> None:
    for target in (b"/v1/players/\xff", b"*", b"/v1/players/a\x00b", b"//", b"/../etc/passwd", b"/v1/%zz"):
        _, writer = await connect(served.url)
        writer.write(b"GET " + target + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        writer.close()
    reader, writer = await connect(served.url)
    authorization = f"authorization: Bearer {TOKEN}\r\n".encode()
    writer.write(b"GET http://elsewhere/v1/players/anna HTTP/1.1\r\nhost: x\r\n" + authorization + b"\r\n")
    assert (await read_response(reader)).status == 200  # the path counts, wherever it is said to be
    writer.close()
    assert await api.get("/v1/players/anna")
    _, log = await served.end()
    assert "Traceback" not in log


async def test_command_line_and_api_answer_alike(served: Served, api: Api, engine: AsyncEngine) -> None:
    await Ledger(engine).post([win(f"w-{n}") for n in range(3)])
    await Ledger(engine).post([win("free", wallet=Wallet.BONUS, kind=Kind.FREE_SPIN, details={"a": "b"})])
    await Ledger(engine).post([win("free", amount_minor=1)])
    await open_session(engine, "klas", "s", "anna")
    found = await api.get(path_of("integrations", "klas", "transfers", "free"))
    transfer_id = found["transfer"]["transfer_id"]
    assert found["transfer"]["conflicts"]
    klas = ("--integration", "klas", "--json")
    asked: dict[tuple[str, ...], Any] = {
        ("player", "show", "anna", "--json"): await api.get("/v1/players/anna"),
        ("transfer", "show", "free", *klas): found,
        ("transfer", "show", "--id", transfer_id, "--json"): await api.get(path_of("transfers", transfer_id)),
        ("transfer", "list", "--player", "anna", "--limit", "2", "--json"): await api.get(
            "/v1/players/anna/transfers?limit=2"
        ),
        ("round", "show", "round-1", "--limit", "2", *klas): await api.get(
            "/v1/integrations/klas/rounds/round-1?limit=2"
        ),
        ("session", "show", "s", *klas): await api.get("/v1/integrations/klas/sessions/s"),
        ("player", "add", "anna", "--currency", "EUR", "--json"): (
            await api.put("/v1/players/anna", {"currency": "EUR"})
        ).json(),
    }
    for arguments, answer in asked.items():
        process = await start(served.environment, *arguments)
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b""), arguments
        assert json.loads(out) == answer, arguments


NO_TOKEN = {"no token": "[]", "a missing one": '["env:NOT_SET"]', "a short one": '["hunter2"]'}


@pytest.mark.parametrize("tokens", NO_TOKEN.values(), ids=NO_TOKEN)
async def test_without_a_right_token_nothing_is_served(tokens: str) -> None:
    process = await start({"CREDITS_OPERATOR__TOKENS": tokens}, "operator")
    out, err = await process.communicate()
    assert (process.returncode, out) == (ExitCode.SETTINGS, b"")
    assert len(err.splitlines()) == 1
    assert err.startswith(b"error: CREDITS_OPERATOR__TOKENS: [operator] tokens: ")
    assert b"hunter2" not in err


async def test_database_that_is_away_at_the_start_is_told_in_one_line() -> None:
    away = {
        "CREDITS_OPERATOR__TOKENS": f'["{TOKEN}"]',
        "CREDITS_LEDGER__DATABASE_URL": "postgresql+asyncpg://user:hunter2@127.0.0.1:1/db",
    }
    process = await start(away, "operator")
    _, err = await process.communicate()
    assert (process.returncode, len(err.splitlines())) == (ExitCode.DATABASE, 1)
    assert err.startswith(b"error: no answer from postgresql+asyncpg://user:***@127.0.0.1:1/db")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_port_that_is_taken_is_told(served: Served) -> None:
    process = await start(served.environment, "operator")
    out, err = await process.communicate()
    assert process.returncode == ExitCode.SETTINGS
    host, port = served.url.removeprefix("http://").split(":")
    said = f"error: [operator] host, port: can't listen on {host}:{port}: address already in use"
    assert err.decode().splitlines()[-1] == said
    assert b"Traceback" not in err
    assert out == b""
