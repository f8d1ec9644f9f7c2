"""The console blocks of the documents: commands behind `$`, and below each what it prints.

Those behind a line `<!-- executed -->` are run by a test. In their output `...` stands for any text, of one line or
several.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.support.paths import ROOT

DOCUMENTS: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *(ROOT / "docs").rglob("*.md")]

_BLOCK: Final = re.compile(r"^(<!-- executed -->\n)?^( *)```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    """A command of a block."""

    line: str
    output: str
    is_executed: bool


def commands_of(document: Path) -> Iterator[Command]:
    """Yield the commands of a document's console blocks, in their order."""
    for executed, indent, text in _BLOCK.findall(document.read_text()):
        block = "\n".join(line.removeprefix(indent) for line in text.splitlines())
        for part in re.split(r"^[$#] ", block, flags=re.MULTILINE)[1:]:
            line, output = _split(part)
            yield Command(line, output.strip("\n"), bool(executed))


def _split(part: str) -> tuple[str, str]:
    """Split a part into the command, which goes on behind a backslash, and its output."""
    lines = part.split("\n")
    end = next((n for n, line in enumerate(lines) if not line.endswith("\\")), len(lines) - 1)
    return "\n".join(lines[: end + 1]), "\n".join(lines[end + 1 :])


def matches(output: str, shown: str) -> bool:
    """Tell whether an output is what a document shows."""
    pattern = ".*".join(map(re.escape, shown.split("...")))
    return re.fullmatch(pattern, output.strip("\n"), re.DOTALL) is not None
