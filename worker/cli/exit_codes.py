"""The exit codes of commands, which scripts may rely on, and messages on standard error."""

import sys
from enum import IntEnum
from typing import NoReturn


class ExitCode(IntEnum):
    """The exit codes. `--help` lists them."""

    OK = 0
    """Done, or the answer is yes."""

    NO = 1
    """The answer is no: the object does not exist, the change was refused, or an invariant is broken."""

    USAGE = 2
    """The command is written wrong."""

    SETTINGS = 3
    """The settings are wrong, the tables are of another version, or a server denies access."""

    DATABASE = 4
    """The database gave no answer."""

    NOT_PAID = 5
    """There is no such transfer: the win is not paid."""

    BROKER = 6
    """The broker gave no answer."""

    UNEXPECTED = 70
    """A defect of this program. The number is that of EX_SOFTWARE in sysexits."""


def fail(code: ExitCode, message: str) -> NoReturn:
    """Print why the command fails as one line on standard error, and exit with `code`."""
    warn(f"error: {message}")
    sys.exit(code)


def warn(message: str) -> None:
    """Print a message as one line on standard error, apart from the answer that programs read."""
    print(" ".join(message.split()), file=sys.stderr)  # noqa: T201  (a command's own output)
