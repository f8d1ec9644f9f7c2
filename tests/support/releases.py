"""The tree of the last release, from the history of this repository."""

import subprocess
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT

LAST_RELEASE: Final = "52abdf5"
"""The last commit whose gateways and workers know credits alone. Installations that run it are upgraded in turn."""

PACKAGES: Final = ("gateway", "worker", "shared")


def unpack_last_release(directory: Path) -> Path:
    """Write the packages of the last release to a directory, and return it."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", LAST_RELEASE, *PACKAGES], cwd=ROOT, check=False, capture_output=True
    )
    assert not archive.returncode, f"{LAST_RELEASE} is not in this clone's history: git fetch --unshallow"
    subprocess.run(["tar", "--extract"], cwd=directory, input=archive.stdout, check=True)
    return directory
