"""Reads the secrets that the settings name: a literal, `env:NAME` or `file:PATH`."""

import os
import stat
from pathlib import Path
from typing import Final

from shared.errors import SettingsError

SECRET_BYTES_MAX: Final = 65_536
_UTF8_MARK: Final = b"\xef\xbb\xbf"


def read_secret(named: str, where: str) -> bytes:
    """Return the secret that the setting `where` names. Raises SettingsError for a missing one.

    White space around the content of a variable or file is stripped: editors and shells end it with a newline.
    Around a literal, where it stands inside quotes, it is refused: it is a mistake that would break every signature.
    """
    if named.startswith("env:"):
        secret = os.environb.get(os.fsencode(named.removeprefix("env:")), b"").strip()
    elif named.startswith("file:"):
        try:
            secret = _read_file(Path(named.removeprefix("file:"))).removeprefix(_UTF8_MARK).strip()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise SettingsError(f"{where}: secret {named}: {reason}") from None
    else:
        named, secret = "literal", os.fsencode(named)
        if secret != secret.strip():
            raise SettingsError(f"{where}: secret (literal) begins or ends with white space")
    if not secret:
        raise SettingsError(f"{where}: secret ({named}) is missing or empty")
    return secret


def _read_file(path: Path) -> bytes:
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("is no file")
    if found.st_size > SECRET_BYTES_MAX:
        raise ValueError(f"is larger than {SECRET_BYTES_MAX} bytes")
    return path.read_bytes()
