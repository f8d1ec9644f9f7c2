"""A clock that one process alone sees, by libfaketime."""

import os
import shutil
from pathlib import Path
from typing import Final

from tests.support.servers import ServersUnavailableError
from tests.support.servers.local import install_packages

PACKAGE: Final = "libfaketime"


def provide_library() -> Path:
    """Return the library, which root on Debian gets installed. Raises ServersUnavailableError."""
    if not (found := _found()) and os.geteuid() == 0 and shutil.which("apt-get"):
        install_packages(PACKAGE)
        found = _found()
    if not found:
        raise ServersUnavailableError(f"Setting a clock needs {PACKAGE}: apt-get install {PACKAGE}")
    return found[0]


def _found() -> list[Path]:
    return list(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def clock_of(file: str) -> dict[str, str]:
    """Return the environment of a process whose clock is as far off as the file says, such as '+3600s'."""
    return {
        "LD_PRELOAD": str(provide_library()),
        "FAKETIME_TIMESTAMP_FILE": file,
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
