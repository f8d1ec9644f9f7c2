"""A newcomer pastes the lines of the documents beside `make run`, and gets what stands below them."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.support.consoles import DOCUMENTS, Command, commands_of, matches
from tests.support.demo import demo, environment, operator_api, paste
from tests.support.paths import ROOT

TRIED = {document: [each for each in commands_of(document) if each.is_executed] for document in DOCUMENTS}
PAGES = [document for document, commands in TRIED.items() if commands]

OPERATOR_API = "http://127.0.0.1:8090"


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
async def test_pasted_lines_print_what_the_document_shows(document: Path, tmp_path: Path) -> None:
    commands, database = TRIED[document], tmp_path / "demo.db"
    async with AsyncExitStack() as running:
        served = await running.enter_async_context(demo(database))
        places = {"http://127.0.0.1:8080": served.url, ".venv/bin/python": shlex.quote(sys.executable)}
        if any(OPERATOR_API in command.line for command in commands):
            places[OPERATOR_API] = await running.enter_async_context(operator_api(database))
        settings = environment(database, CREDITS_CONFIG="", CREDITS_GATEWAY__PORT=served.url.rpartition(":")[2])
        printed = (await paste(script(commands, places), settings)).split("\0")
    outputs, codes = printed[:-1:2], printed[1::2]
    for command, output, code in zip(commands, outputs, codes, strict=True):
        assert code == "0", command.line
        assert matches(output, command.output), (command.line, output)


def script(commands: Sequence[Command], places: dict[str, str]) -> str:
    """Return the commands as one script for a shell, which prints the exit code behind each output."""
    lines = "\n".join(f"{command.line}\nprintf '\\000%d\\000' $?" for command in commands)
    for written, here in places.items():
        lines = lines.replace(written, here)
    return lines


def test_what_newcomers_read_first_is_tried() -> None:
    names = {str(document.relative_to(ROOT)) for document in PAGES}
    assert names >= {"README.md", "docs/operations/support.md", "docs/operations/operator-api.md"}
    assert sum(map(len, TRIED.values())) >= 10
