"""Reads the broker's URL, `amqp://user:password@host:5672/vhost`; for a cluster, one per node between commas.

>>> node_urls("amqp://a:5672/credits,amqp://b:5672/credits")
('amqp://a:5672/credits', 'amqp://b:5672/credits')
>>> node_of("amqp://user:password@b:5672/credits")
'b:5672'

A comma separates only where another URL begins after it: a password may hold one.
"""

import re
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from shared.server_url import (
    ACCOUNT_HINT,
    read_options,
    refuse_account,
    refuse_host_and_port,
    refuse_options,
    refuse_tls_files,
)

_OPTIONS: Final = frozenset({"auth", "name"})
_SET_ELSEWHERE: Final = {
    "heartbeat": "heartbeat does not stand in the URL: set [broker] heartbeat_seconds",
    "timeout": "timeout does not stand in the URL, and can't be set: a node has 5 s for its answer",
}
"""Options that the driver knows and that would have no effect in the URL."""

_TLS_OPTIONS: Final = frozenset({"cafile", "capath", "certfile", "keyfile", "no_verify_ssl"})
VHOST_BYTES_MAX: Final = 255
_MECHANISMS: Final = ("plain", "amqplain", "external")

_SEPARATOR: Final = re.compile(r"\s*,\s*(?=amqps?://)")


def node_urls(url: str) -> tuple[str, ...]:
    """Return the URL of each node."""
    return tuple(_SEPARATOR.split(url))


def node_of(url: str) -> str:
    """Return host and port of one URL, without the account, for logs."""
    return urlsplit(url).netloc.rpartition("@")[2]


def checked(url: str) -> str:
    """Return `url` unchanged if it is valid. Raises ValueError, which does not repeat it: it may hold a password."""
    urls = node_urls(url)
    for number, one in enumerate(urls, 1):
        if defect := _defect(one):
            raise ValueError(f"URL {number} of {len(urls)}: {defect}")
    if len({vhost_of(one) for one in urls}) > 1:
        raise ValueError("all nodes are of one cluster, and so all URLs must name the same virtual host")
    return url


def _defect(url: str) -> str | None:
    """Return what is wrong with one URL, or None."""
    if not re.match("amqps?://", url):
        return "must be memory:// or begin with amqp:// or amqps://"
    if defect := refuse_account(url):
        return defect
    parts = urlsplit(url)
    if "," in node_of(url) + parts.path:
        return "a comma must have a whole URL on either side, amqp:// included"
    if len(vhost_of(url).encode()) > VHOST_BYTES_MAX:
        return f"the virtual host has more than {VHOST_BYTES_MAX} bytes"
    return refuse_host_and_port(parts) or _refuse_options(parts) or _refuse_by_driver(url)


def _refuse_by_driver(url: str) -> str | None:
    """Return a message if the driver can't parse a URL, as some with non-ASCII letters, or None.

    The driver's own error would repeat the password.
    """
    if url.isascii():
        return None
    from yarl import URL  # noqa: PLC0415  (few URLs need it)

    try:
        URL(url)
    except ValueError:
        return f"the driver can't read it; {ACCOUNT_HINT}"
    return None


def _refuse_options(parts: SplitResult) -> str | None:
    options = read_options(parts.query)
    if any(name in _TLS_OPTIONS for name in options) and parts.scheme != "amqps":
        return "options of TLS need amqps://"
    for name, defect in _SET_ELSEWHERE.items():
        if name in options:
            return defect
    known = _OPTIONS | _TLS_OPTIONS if parts.scheme == "amqps" else _OPTIONS
    if options.get("auth", "plain").lower() not in _MECHANISMS:
        return f"auth is one of {', '.join(_MECHANISMS)}"
    return refuse_options(options, known) or refuse_tls_files(options, "cafile", "certfile", "keyfile")


def vhost_of(url: str) -> str:
    """Return the virtual host of one URL.

    >>> vhost_of("amqp://a/credits"), vhost_of("amqp://a/%2F"), vhost_of("amqp://a")
    ('credits', '/', '/')
    """
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"
