"""What a newcomer does first: start the demonstration, paste its lines, paste them again, start it again."""

import asyncio
import json
import socket
import sys
from pathlib import Path

import pytest

from tests.support.commands import INHERITED
from tests.support.demo import demo, environment, paste
from tests.support.paths import ROOT
from tests.support.servers.server import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.any_server]


async def test_pasted_lines_pay_once_and_balances_survive_a_second_start(tmp_path: Path) -> None:
    async with demo(tmp_path / "demo.db") as first:
        assert len(first.lines) == 4
        paid = [await paste(line) for line in first.lines]
        balances = ('"balance":"10.5"', '"leftBalance":21,', '"balance":31.5,', '"balance":42}')
        assert all(balance in reply for balance, reply in zip(balances, paid, strict=True)), paid
        again = [await paste(line) for line in first.lines]
        assert again[:3] == paid[:3]
        assert '"code":0' in paid[3]
        assert again[3].replace('"code":11', '"code":0').split('"platform')[1] == paid[3].split('"platform')[1]
    async with demo(tmp_path / "demo.db") as second:
        assert not set(first.lines) & set(second.lines)
        assert '"balance":"52.5"' in await paste(second.lines[0])


@pytest.mark.parametrize("taken", ["PORT", "OPERATIONS_PORT"])
async def test_port_that_is_taken_is_one_line_and_nothing_to_paste(tmp_path: Path, taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        (port,) = free_ports(1)
        ports = {"PORT": port, "OPERATIONS_PORT": port, taken: other.getsockname()[1]}
        settings = {f"CREDITS_GATEWAY__{name}": str(number) for name, number in ports.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway", "demo"),
            cwd=ROOT,
            env=environment(tmp_path / "demo.db", **settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (3, b"")
    (said,) = (line for line in err.decode().splitlines() if line.startswith("credits: "))
    assert said.endswith(f"can't listen on 127.0.0.1:{ports[taken]}: address already in use")


async def simulate(url: str, *arguments: str) -> tuple[int, str]:
    """Play the providers with the demonstration's secrets; return the exit code and what was printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simulator",
        url,
        *arguments,
        cwd=ROOT,
        env={**INHERITED, "CREDITS_CONFIG": "gateway/demo.toml"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert b"Traceback" not in err, err
    return process.returncode or 0, out.decode()


async def test_providers_are_played_against_a_gateway(tmp_path: Path) -> None:
    sending = ("--rate", "40", "--seconds", "2", "--hurry", "10")
    async with demo(tmp_path / "credits.db") as served:
        code, out = await simulate(served.url, "--player", "player01=demo-session", *sending, "--json")
        summary = json.loads(out)
        by_integration = summary["by_integration"]
        assert (code, summary["contradictions"]) == (0, []), out
        assert sum(service["wins"] for service in by_integration.values()) == 80
        assert len(by_integration) == 4
        assert not any(service["unpaid"] for service in by_integration.values())
        code, out = await simulate(served.url, "--player", "nobody", *sending, "--only", "klas")
        assert code == 1
        assert "NOT every win was told as paid" in out
        code, _ = await simulate(served.url, "--player", "player01", "--only", "nosuch")
        assert code == 3
