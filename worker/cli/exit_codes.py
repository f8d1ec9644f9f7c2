"""How a command ends: exit codes that scripts can rely on."""

import sys
from enum import IntEnum
from typing import NoReturn


class ExitCode(IntEnum):
    """Exit codes. `--help` lists them."""

    OK = 0
    """Done, or the answer is yes."""

    NO = 1
    """The answer is no: there is no such thing, it is refused, or an invariant is broken."""

    USAGE = 2
    """The command is written wrong."""

    SETTINGS = 3
    """The settings are wrong, the tables are not this version's, or a server refuses what is asked."""

    DATABASE = 4
    """The database gave no answer."""

    NOT_PAID = 5
    """There is no such transfer: the win is not paid."""

    BROKER = 6
    """The broker gave no answer."""

    UNEXPECTED = 70
    """A defect of this program; the same number as sysexits' EX_SOFTWARE."""


def fail(code: ExitCode, message: str) -> NoReturn:
    """Say on standard error, in one line, why the command ends without success."""
    warn(f"error: {message}")
    sys.exit(code)


def warn(message: str) -> None:
    """Say something on standard error, which programs that read the answer don't see."""
    print(" ".join(message.split()), file=sys.stderr)  # noqa: T201  (a command's own output)
