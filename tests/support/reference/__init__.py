"""The pages of docs/reference, made from the code: settings, metrics, commands, tables and the operator API.

`make docs` writes them, and a test fails where a page and the code differ. What has no description in the code
is an error here, so that nothing is added that nobody can look up.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.reference import commands, metrics, operator_api, schema, settings

FOLDER: Final = ROOT / "docs/reference"

PAGES: Final[Mapping[Path, Callable[[], str]]] = {
    FOLDER / "settings.md": settings.page,
    FOLDER / "metrics.md": metrics.page,
    FOLDER / "commands.md": commands.page,
    FOLDER / "schema.md": schema.page,
    FOLDER / "operator-api.md": operator_api.page,
}
