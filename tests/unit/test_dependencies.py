"""Every package that is imported is declared: one that comes with another may leave with that one's next version."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.support.paths import ROOT

RUNTIME = ("gateway", "worker", "shared", "simulator")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[str]] = PROJECT["dependency-groups"]
DISTRIBUTIONS = {**packages_distributions(), "matplotlib": ["matplotlib"]}  # which only `make bench` installs


def normalized(requirement: str) -> str:
    """Return a distribution's name as package indexes compare it, without extras and versions."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


DECLARED = set(map(normalized, PROJECT["project"]["dependencies"]))
FOR_TESTS = DECLARED | set(map(normalized, GROUPS["dev"]))
FOR_BENCH = FOR_TESTS | set(map(normalized, GROUPS["bench"]))


def imported(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each top-level package that a file imports and is not ours or Python's own, with the file."""
    ours = RUNTIME if folder.name in RUNTIME else (*RUNTIME, "tests")  # the image has no tests
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                package = name.partition(".")[0]
                if package not in ours and package not in sys.stdlib_module_names:
                    yield package, str(file.relative_to(ROOT))


def undeclared(folder: Path, declared: set[str]) -> list[str]:
    """Return what a folder imports that none of the declared distributions brings."""
    return sorted(
        {
            f"{file}: {package}"
            for package, file in imported(folder)
            if not declared & {normalized(name) for name in DISTRIBUTIONS.get(package, ())}
        }
    )


@pytest.mark.parametrize("room", RUNTIME)
def test_package_that_runs_imports_what_the_image_installs(room: str) -> None:
    assert len(set(imported(ROOT / room))) > 0
    assert undeclared(ROOT / room, DECLARED) == []


def test_tests_import_what_their_group_installs() -> None:
    rooms = [folder for folder in (ROOT / "tests").iterdir() if folder.is_dir() and folder.name != "bench"]
    assert len(rooms) >= 8
    assert [found for room in rooms for found in undeclared(room, FOR_TESTS)] == []
    assert undeclared(ROOT / "tests/bench", FOR_BENCH) == []


@pytest.mark.parametrize(
    ("lock", "declared"),
    [("requirements.lock", DECLARED), ("requirements-dev.lock", FOR_TESTS), ("requirements-bench.lock", FOR_BENCH)],
)
def test_declared_package_is_locked(lock: str, declared: set[str]) -> None:
    locked = {normalized(line) for line in (ROOT / lock).read_text().splitlines() if re.match(r"[A-Za-z0-9]", line)}
    assert declared - locked == set()


def test_import_that_nothing_declares_is_found() -> None:
    assert undeclared(ROOT / "shared", DECLARED - {"msgspec"}) != []
    assert [line.rpartition(" ")[2] for line in undeclared(ROOT / "gateway", DECLARED - {"uvloop"})] == ["uvloop"]
