"""Where the broker is: `amqp://user:password@host:5672/vhost`, and of a cluster each node's, between commas.

>>> node_urls("amqp://a:5672/credits,amqp://b:5672/credits")
('amqp://a:5672/credits', 'amqp://b:5672/credits')
>>> node_of("amqp://user:password@b:5672/credits")
'b:5672'

A comma separates only where another URL begins after it: a password may hold one.
"""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

_BETWEEN: Final = re.compile(r"\s*,\s*(?=amqps?://)")


def node_urls(url: str) -> tuple[str, ...]:
    """Return the URL of each node."""
    return tuple(_BETWEEN.split(url))


def node_of(url: str) -> str:
    """Return host and port of one URL, to be logged: without the account."""
    return urlsplit(url).netloc.rpartition("@")[2]


def checked(url: str) -> str:
    """Return `url` as it is. Raises ValueError without repeating it, for it may hold a password."""
    urls = node_urls(url)
    for number, one in enumerate(urls, 1):
        if defect := _defect(one):
            raise ValueError(f"URL {number} of {len(urls)}: {defect}")
    if len({_vhost(one) for one in urls}) > 1:
        raise ValueError("all nodes are of one cluster, and so all URLs must name the same virtual host")
    return url


def _defect(url: str) -> str:
    """Return what is wrong with one URL, or ""."""
    if not re.match("amqps?://", url):
        return "must be memory:// or begin with amqp:// or amqps://"
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket without its other
        return "it is no URL"
    if "," in node_of(url) + parts.path:
        return "a comma must have a whole URL on either side, amqp:// included"
    try:
        _ = parts.port
    except ValueError:
        return "the port must be a number up to 65535 (in a password write %2F for /, %3F for ?, %23 for #)"
    return "" if parts.hostname else "there is no host"


def _vhost(url: str) -> str:
    return unquote(urlsplit(url).path.removeprefix("/")) or "/"
