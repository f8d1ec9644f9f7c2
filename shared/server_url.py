"""What the URLs of our servers have in common: an account that may be misread, options, files of TLS.

A driver passes over an option that it doesn't know, or fails by it at every connection, which looks like an
outage. So options are named here, and any other stops the start. No message repeats a value.
"""

import re
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

OPTIONS_MAX: Final = 30
ACCOUNT_HINT: Final = "in a password write %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %"

_IDENTIFIER: Final = re.compile(r"[A-Za-z_]{1,40}")


def refuse_account(url: str) -> str | None:
    """Return what is wrong with a URL whose account reaches beyond its place, or None.

    >>> refuse_account("redis://:p/w@cache:6379/0")
    'is no URL; in a password write %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %'
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket without its other
        return f"is no URL; {ACCOUNT_HINT}"
    if "#" in url or "@" in f"{parts.path}?{parts.query}":
        return f"is no URL; {ACCOUNT_HINT}"
    return None


def refuse_port(parts: SplitResult) -> str | None:
    """Return what is wrong with the port of a URL, or None."""
    try:
        _ = parts.port
    except ValueError:
        return f"the port must be a number up to 65535; {ACCOUNT_HINT}"
    return None


def read_options(query: str) -> dict[str, str]:
    """Return a URL's options. Raises ValueError for one that is there twice, or too many."""
    pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=OPTIONS_MAX)
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("an option is there twice")
    return options


def refuse_options(options: Collection[str], known: Collection[str]) -> str | None:
    """Return what is wrong with the names of options, or None."""
    unknown = [name for name in options if name not in known]
    if not unknown:
        return None
    named = repr(unknown[0]) if _IDENTIFIER.fullmatch(unknown[0]) else "of that name"
    return f"there is no option {named}; there are {', '.join(sorted(known))}"


def refuse_tls_files(options: Mapping[str, str], authority: str, certificate: str, key: str) -> str | None:
    """Return what is wrong with the files of TLS that these options name, or None.

    They hold the authorities' certificates, our own certificate, and its key.
    """
    if key in options and certificate not in options:
        return f"{key} needs {certificate}"
    for option in (authority, certificate, key):
        if option in options and (defect := _refuse_file(Path(options[option]))):
            return f"{option}: {options[option]}: {defect}"
    try:
        if authority in options:
            ssl.create_default_context(cafile=options[authority])
        if certificate in options:
            ssl.create_default_context().load_cert_chain(
                options[certificate], options.get(key), password=lambda: ""
            )
    except ssl.SSLError as error:
        at_fault = certificate if certificate in options else authority
        return f"{at_fault}: holds no certificate that can be used: {error.reason or 'no PEM'}"
    return None


def _refuse_file(path: Path) -> str | None:
    try:
        with path.open("rb"):
            return None
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or "is no path"
