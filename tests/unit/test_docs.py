"""What the documents name is there: files, headings, commands, options, settings and metrics."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from pydantic import BaseModel

from gateway.__main__ import cli
from shared.settings import Settings
from tests.support.consoles import DOCUMENTS, commands_of
from tests.support.paths import ROOT
from tests.support.reference import FOLDER
from worker.cli.app import app

LINES_MAX_OF_README = 120
COLUMNS_MAX = 120

EXAMPLE = re.compile("NAME|acme")
"""In the path of a file that somebody may add, and that is not here."""

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= LINES_MAX_OF_README
    assert [line for line in lines if len(line) > COLUMNS_MAX] == []


@each_document
def test_prose_has_no_long_lines(document: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > COLUMNS_MAX and not line.startswith("|")] == []


@each_document
def test_links_lead_to_files_and_headings(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", document.read_text()):
        found = (document.parent / target).resolve() if target else document
        assert found.exists(), target
        assert not anchor or anchor in set(anchors(found)), (target, anchor)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert len(pages) >= 30
    assert [page for page in sorted(pages) if f"]({page})" not in index] == []


def test_decisions_are_numbered_and_complete() -> None:
    decisions = sorted((ROOT / "docs/decisions").iterdir())
    assert [path.name[:5] for path in decisions] == [f"{number:04}-" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
        assert headings[0].startswith(f"{path.name[:4]}: ")
        assert set(headings) >= {"Context", "Decision", "Consequences", "Measured"}


@each_document
def test_commands_and_their_options_exist(document: Path) -> None:
    for words in commands_in(document):
        module, *rest = words
        command: Any = typer.main.get_command(app if module == "worker" else cli)
        while rest and rest[0] in getattr(command, "commands", {}):
            command = command.commands[rest.pop(0)]
        assert not getattr(command, "commands", {}) or module == "gateway" or not rest, words
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in rest if word.startswith("--")} <= known, words


def test_commands_in_the_documents_are_found() -> None:
    found = [tuple(words[:3]) for document in DOCUMENTS for words in commands_in(document)]
    assert ("worker", "transfer", "show") in found
    assert ("gateway", "sign", "NAME") in found
    assert len(found) >= 40


@each_document
def test_modules_and_paths_exist(document: Path) -> None:
    prose = re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    modules = re.findall(r"python -m ([a-z_.]*[a-z_])", document.read_text())
    paths = [f"{module.replace('.', '/')}" for module in modules]
    paths += re.findall(r"`((?:gateway|worker|shared|tests|deploy|docs|\.ci)/[\w./-]*)`", prose)
    paths = [path for path in paths if not EXAMPLE.search(path)]
    assert [path for path in paths if not ((ROOT / path).exists() or (ROOT / f"{path}.py").exists())] == []


@each_document
def test_tests_exist(document: Path) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`,? `(test_\w+)`", document.read_text())
    assert [(path, name) for path, name in named if f"def {name}(" not in (ROOT / path).read_text()] == []


@each_document
def test_targets_of_make_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|\$ )make ([a-z-]+)", document.read_text())) <= targets


@each_document
def test_settings_exist(document: Path) -> None:
    named = re.findall(r"`\[([a-z]+)\] ([a-z_0-9]+)", document.read_text())
    for table, name in named:
        type_ = Settings.model_fields[table].annotation
        assert isinstance(type_, type)
        assert issubclass(type_, BaseModel)
        assert name in type_.model_fields, (table, name)


@each_document
def test_metrics_exist(document: Path) -> None:
    known = set(re.findall(r"\*\*`(credits_[a-z_]+)", (FOLDER / "metrics.md").read_text()))
    assert len(known) >= 20
    named = set(re.findall(r"`(credits_[a-z_]+?)(?=[`{])", document.read_text()))
    assert named - ROLES <= known


ROLES = {f"credits_{role}" for role in ("owner", "worker", "operator", "reader", "auditor")}
"""Roles of PostgreSQL in the documents, which are named as metrics are."""


def anchors(document: Path) -> Iterator[str]:
    """Yield the anchors of a document's headings, as GitHub makes them."""
    for heading in re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands_in(document: Path) -> Iterator[list[str]]:
    """Yield the commands that a document shows, as words from the module on."""
    text = document.read_text()
    shown = [command.line for command in commands_of(document)]
    shown += re.findall(r"`([^`\n]*python -m (?:worker|gateway)[^`]*)`", text)
    for line in shown:
        for found in re.findall(r"python -m ((?:worker|gateway)\b[^|;&)]*)", line.replace("\\\n", " ")):
            yield [word for word in shlex.split(found, comments=True) if word != "..."]
