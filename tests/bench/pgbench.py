"""pgbench: the database's own measure of small transactions, on the same server, in a database of its own."""

import asyncio
import os
import re
import subprocess
from typing import Final

from tests.bench.closed_loop import CLIENT, Run, client_cpu_us
from tests.bench.processes import cpu_us
from tests.bench.wrk import VoidRunError
from tests.support.servers import Servers, fresh_database
from tests.support.servers.local import programs_path

SCALE: Final = 30
CLIENTS: Final = 16
"""No more of them than branches, whose rows they would otherwise wait for."""

_TPS: Final = re.compile(r"^tps = ([0-9.]+) ", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: ([0-9]+)", re.MULTILINE)
_DONE: Final = re.compile(r"^number of transactions actually processed: ([0-9]+)", re.MULTILINE)


async def prepared(servers: Servers) -> str:
    """Make pgbench's tables; return their database's URL."""
    url = (await fresh_database(servers)).replace("+asyncpg", "")
    await asyncio.to_thread(_pgbench, "--initialize", "--quiet", f"--scale={SCALE}", url)
    return url


async def measure(servers: Servers, url: str, seconds: float) -> Run:
    """Run the TPC-B-like script. Raises VoidRunError."""
    roots = {"PostgreSQL": servers.postgres.pid}
    before, client_before = cpu_us(roots), client_cpu_us()
    options = ("--protocol=prepared", f"--client={CLIENTS}", "--jobs=2", f"--time={seconds:.0f}")
    output = await asyncio.to_thread(_pgbench, *options, url)
    tps, transactions = parse(output)
    cpu = {name: (us - before[name]) / transactions for name, us in cpu_us(roots).items()}
    return Run(
        name="pgbench TPC-B-like",
        connections=CLIENTS,
        per_second=tps,
        p50_ms=0,
        p99_ms=0,
        p999_ms=0,
        max_ms=0,
        cpu_us={**cpu, CLIENT: (client_cpu_us() - client_before) / transactions},
    )


def parse(output: str) -> tuple[float, int]:
    """Return transactions per second, and how many there were. Raises VoidRunError."""
    found = [pattern.search(output) for pattern in (_TPS, _DONE)]
    failed = _FAILED.search(output)
    if not all(found) or (failed and int(failed[1])):
        raise VoidRunError(f"pgbench failed: {output}")
    tps, transactions = (match[1] for match in found if match)
    return float(tps), int(transactions)


def _pgbench(*arguments: str) -> str:
    done = subprocess.run(
        ["pgbench", *arguments],
        env={**os.environ, "PATH": programs_path()},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise VoidRunError(f"pgbench failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
