"""Checks the parts that our servers' URLs share: host, port, account, options and TLS files.

A driver ignores an option that it doesn't know, or fails at every connection because of it, which looks like an
outage. So the known options are listed, and any other one prevents the start. No message repeats a value.
"""

import re
import ssl
from collections.abc import Collection, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote_to_bytes, urlsplit

OPTIONS_MAX: Final = 30
PORT_MAX: Final = 65_535
HOST_CHARACTERS_MAX: Final = 253
LABEL_CHARACTERS_MAX: Final = 63
ACCOUNT_HINT: Final = "in a password write %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %"

_IDENTIFIER: Final = re.compile(r"[A-Za-z_]{1,40}")
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def refuse_account(url: str) -> str | None:
    """Return what is wrong with a URL whose password breaks the URL's syntax, or None.

    >>> refuse_account("redis://:p/w@cache:6379/0")
    'is no URL; in a password write %40 for @, %2F for /, %3F for ?, %23 for #, %25 for %'
    """
    if defect := refuse_characters(url):
        return defect
    try:
        parts = urlsplit(url)
    except ValueError:  # an unmatched bracket
        return f"is no URL; {ACCOUNT_HINT}"
    if "#" in url or "@" in f"{parts.path}?{parts.query}":
        return f"is no URL; {ACCOUNT_HINT}"
    return None


def refuse_characters(url: str) -> str | None:
    """Return what is wrong with the characters of a URL, raw or percent-decoded, or None.

    NUL ends a C string and separates the fields of an AMQP login, so a password with NUL would arrive altered.
    """
    if _CONTROL.search(url):
        return "a line break, or another character that can't be seen, stands in it"
    decoded = unquote_to_bytes(url)
    if b"\0" in decoded:
        return "%00 stands in it, which no server takes"
    try:
        decoded.decode()
    except UnicodeDecodeError:
        return "what is written with % is not UTF-8"
    return None


def refuse_host_and_port(parts: SplitResult) -> str | None:
    """Return what is wrong with the host and port of a URL, or None."""
    try:
        port = parts.port
    except ValueError:
        return f"the port must be a number up to {PORT_MAX}; {ACCOUNT_HINT}"
    if port == 0:
        return f"the port must be a number from 1 to {PORT_MAX}"
    # Not urlsplit's hostname, which is in lower case and drops the brackets and anything after them.
    host_and_port = parts.netloc.rpartition("@")[2]
    if host_and_port.startswith("["):
        inside, bracket, after = host_and_port[1:].partition("]")
        if not bracket or (after and not after.startswith(":")):
            return "what stands in brackets is no IPv6 address"
        return refuse_host(inside, is_bracketed=True)
    return refuse_host(host_and_port.partition(":")[0])


def refuse_host(host: str, *, is_bracketed: bool = False) -> str | None:
    """Return what is wrong with a host name or address, or None.

    Only invalid names are refused; a valid name that no resolver knows may become known later.

    >>> refuse_host("a..b"), refuse_host("redis-1.internal."), refuse_host("fe80::1", is_bracketed=True)
    ('two dots of the host have nothing between them', None, None)
    """
    if not host:
        return "there is no host"
    if is_bracketed:
        return None if _is_ipv6(host) else "what stands in brackets is no IPv6 address"
    if not host.isprintable():  # pasted by accident: some drivers ignore such characters, others raise
        return "the host has a character that can't be seen"
    try:
        labels = [label if label.isascii() else label.encode("idna").decode() for label in host.split(".")]
    except UnicodeError:
        return "the host is no name that can be written in DNS"
    return _refuse_labels(labels if labels[-1] else labels[:-1])


def _refuse_labels(labels: Sequence[str]) -> str | None:
    if not all(labels):
        return "two dots of the host have nothing between them"
    if len(".".join(labels)) > HOST_CHARACTERS_MAX or max(map(len, labels)) > LABEL_CHARACTERS_MAX:
        return f"a host has {HOST_CHARACTERS_MAX} characters at most, and {LABEL_CHARACTERS_MAX} between dots"
    if not all(map(_LABEL.fullmatch, labels)):
        return f"the host has a character that no name has; {ACCOUNT_HINT}"
    return None


def _is_ipv6(host: str) -> bool:
    try:
        return ip_address(host).version == 6
    except ValueError:
        return False


def read_options(query: str) -> dict[str, str]:
    """Return a URL's options. Raises ValueError if one is given twice or there are too many."""
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
    """Return what is wrong with the TLS files that a URL's options name, or None.

    The parameters are the names of the options for the CA certificates, our own certificate, and its key.
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
            ssl.create_default_context().load_cert_chain(options[certificate], options.get(key), password=lambda: "")
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
