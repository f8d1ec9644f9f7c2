"""The guide for new providers as a program: the files and registry lines that its blocks name."""

import re
import shutil
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.paths import ROOT

GUIDE: Final = ROOT / "docs/providers/adding.md"
SOURCES: Final = ("gateway", "worker", "shared", "simulator", "tests", "docs", "pyproject.toml")
REGISTRY: Final = "gateway/providers/registry.py"

_BLOCK: Final = re.compile(r"^`([\w./]+)`[^\n]*:\n\n```(python|diff)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FIRST_IMPORT: Final = "from gateway.providers.base import"
_TABLE: Final = re.compile(r"^PROVIDERS: [^\n]*= \{\n", re.MULTILINE)


class Step(NamedTuple):
    """One file that the guide has a newcomer write or change."""

    path: str
    text: str
    """The whole file, or the lines to add to it."""


def steps() -> list[Step]:
    """Return the steps of the guide."""
    return [Step(path, text) for path, _, text in _BLOCK.findall(GUIDE.read_text())]


def follow(directory: Path) -> None:
    """Copy the sources to a directory, and do there what the guide says: no more and no less."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, directory / name)
    for path, text in steps():
        file = directory / path
        if path == REGISTRY:
            file.write_text(_registered(file.read_text(), text))
        else:
            assert not file.exists(), f"{path} is there already"
            file.write_text(text)


def _registered(registry: str, added: str) -> str:
    """Return the registry with an import and a row."""
    imported, row = (line.removeprefix("+") for line in added.splitlines())
    assert registry.count(_FIRST_IMPORT) == 1
    with_import = registry.replace(_FIRST_IMPORT, f"{imported}\n{_FIRST_IMPORT}")
    return _TABLE.sub(lambda table: f"{table[0]}{row}\n", with_import, count=1)
