"""The guide for new providers is enough: one that does what it says, and nothing else, has a provider that works."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.guide import GUIDE, REGISTRY, follow, steps
from tests.support.servers import Servers
from tests.support.system import SESSION, running_system

ADDED = {
    "gateway/providers/acme.py",
    REGISTRY,
    "simulator/dialects/acme.py",
    "tests/providers/test_acme.py",
}
LISTING = ("test_strange_input.py", "test_silence.py", "test_currencies.py", "../unit/test_simulator.py")
"""The tests that take every provider of the registry by themselves."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with the fictitious provider of the guide."""
    directory = tmp_path_factory.mktemp("sources")
    follow(directory)
    return directory


async def run(tree: Path, *arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a module of the tree; return its exit code and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=tree,
        env={**os.environ, **(environment or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_guide_names_one_file_each_and_a_registry_line() -> None:
    assert {step.path for step in steps()} == ADDED
    assert len(steps()) == len(ADDED)
    [registry] = (step for step in steps() if step.path == REGISTRY)
    assert [line[0] for line in registry.text.splitlines()] == ["+", "+"]
    assert all(len(line) <= 120 for line in GUIDE.read_text().splitlines())


async def test_files_of_the_guide_pass_the_checks_of_style(tree: Path) -> None:
    for check in (("check",), ("format", "--check")):
        code, out, err = await run(tree, "ruff", *check, *sorted(ADDED))
        assert code == 0, out + err


async def test_provider_of_the_guide_passes_every_test_of_providers(tree: Path) -> None:
    files = [f"tests/providers/{name}" for name in ("test_acme.py", *LISTING)]
    code, out, err = await run(
        *(tree, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"), *files, "-k", "acme and not postgresql"
    )
    assert code == 0, out + err


async def test_provider_of_the_guide_is_paid_by_a_real_system(tree: Path, servers: Servers) -> None:
    added = {
        "PYTHONSAFEPATH": "1",  # or a process takes the sources from its working directory
        "PYTHONPATH": str(tree),
        "CREDITS_INTEGRATIONS__ACME__PROVIDER": "acme",
        "CREDITS_INTEGRATIONS__ACME__SECRETS": "acme-secret",
    }
    async with running_system(servers, workers=1, **added) as system:
        await system.add_players(["anna"])
        sending = ("--player", f"anna={SESSION}anna", "--rate", "25", "--seconds", "2", "--hurry", "10", "--json")
        code, out, err = await run(tree, "simulator", system.url, *sending, environment=dict(system.environment))
        assert code == 0, out + err
        by_integration = json.loads(out)["by_integration"]
        assert set(by_integration) == set(system.providers) | {"acme"}
        wins = {name: service["wins"] for name, service in by_integration.items()}
        assert wins["acme"] == 10
        posted = await system.query("SELECT integration, count(*) FROM transfers GROUP BY integration")
        assert sorted(posted) == sorted(wins.items())
        audit = await system.command("verify", "--full")
        assert audit.returncode == 0, audit.stdout + audit.stderr
