"""The machine: what it needs for measuring, and what to say of it beside every number."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import asyncpg

from tests.support.paths import ROOT
from tests.support.servers import Servers, ServersUnavailableError
from tests.support.servers.local import install_packages, programs_path

TOOLS: Mapping[str, str] = {"wrk": "wrk", "pgbench": "postgresql"}
"""Programs, and Debian's packages of them."""


def provide_tools() -> None:
    """Have root on Debian install what is missing. Raises ServersUnavailableError."""
    missing = _missing()
    if missing and os.geteuid() == 0 and shutil.which("apt-get"):
        if failure := install_packages(*missing.values()):
            raise ServersUnavailableError(failure)
        missing = _missing()
    if missing:
        packages = " ".join(missing.values())
        raise ServersUnavailableError(f"make bench needs {', '.join(missing)} (Debian: apt-get install {packages})")


def _missing() -> dict[str, str]:
    return {tool: package for tool, package in TOOLS.items() if not shutil.which(tool, path=programs_path())}


async def describe(servers: Servers) -> dict[str, str]:
    """Return what a reader must know to compare a number with another."""
    return {
        **_hardware(),
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "commit": _commit(),
        **await _postgres(servers),
        "RabbitMQ": servers.rabbitmq.run("rabbitmqctl", "--quiet", "version").strip(),
        "Redis": servers.redis.run("redis-server", "--version").split()[2].removeprefix("v="),
        **{name: version(name) for name in ("starlette", "uvicorn", "uvloop", "sqlalchemy", "asyncpg", "aiormq")},
    }


def _hardware() -> dict[str, str]:
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "processors": f"{os.cpu_count()} x {cpu[0].partition(':')[2].strip() if cpu else platform.machine()}",
        "memory": f"{memory_kib / 2**20:.0f} GiB",
    }


async def _postgres(servers: Servers) -> dict[str, str]:
    """Return its version and that it is durable. Raises ServersUnavailableError if it is not."""
    connection = await asyncpg.connect(servers.database_url.replace("+asyncpg", ""))
    try:
        durable = {name: await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")}
        said = {"PostgreSQL": str(await connection.fetchval("SHOW server_version")), **durable}
    finally:
        await connection.close()
    if set(durable.values()) != {"on"}:
        raise ServersUnavailableError(f"PostgreSQL is not durable: {durable}")
    return said


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"
