"""Secrets that the settings name: a literal, `env:NAME` or `file:PATH`."""

import os
from pathlib import Path

from shared.errors import SettingsError


def read_secret(named: str, where: str) -> bytes:
    """Return the secret that the setting `where` names. Raises SettingsError for a missing one."""
    if named.startswith("env:"):
        secret = os.environ.get(named.removeprefix("env:"), "").encode()
    elif named.startswith("file:"):
        try:
            secret = Path(named.removeprefix("file:")).read_bytes().strip()
        except OSError as error:
            raise SettingsError(f"{where}: secret {named}: {error.strerror}") from None
    else:
        named, secret = "literal", named.encode()
    if not secret:
        raise SettingsError(f"{where}: secret ({named}) is missing or empty")
    return secret
