"""Finds secrets that are published in this repository: fit for a demonstration on loopback, and nothing else.

A process that is reachable from other machines does not start with one of them.
"""

import ipaddress
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from shared.broker_url import node_urls
from shared.errors import SettingsError
from shared.postgres_password import postgres_passwords
from shared.secrets import read_secret
from shared.sentinel_url import is_sentinel_url, read
from shared.settings import Settings

PUBLISHED: Final = frozenset(
    {
        "operator-demo-token",
        "credits",
        "guest",  # RabbitMQ's own account
        # Placeholders in the documentation.
        "PASSWORD",
        "password",
        "...",
    }
)
PUBLISHED_PREFIX: Final = "demo-"
"""The prefix of every demonstration password and key in compose.yaml."""

PUBLISHED_SUFFIXES: Final = ("-demo-secret", "_PASSWORD")
"""The endings of the providers' secrets in gateway/demo.toml, and of the passwords in deploy/ that yours replace."""

_SECRET_KEYS: Final = frozenset({"secrets", "tokens", "keys"})


def refuse_published_secrets(settings: Settings, table: str) -> None:
    """Raise SettingsError, which names the key, if `[table]` is served beyond loopback with a published secret."""
    server = settings.gateway if table == "gateway" else settings.operator
    served_at = server.served_at or server.host
    if is_loopback(served_at):
        return
    for key, source, secret in _secrets(settings.model_dump(), ()):
        if is_published(secret):
            raise SettingsError(
                f"{key}: {source}is published in the sources, so anybody knows it, while [{table}] is"
                f" served at {served_at}: use your own, or serve on loopback only"
            )


def is_published(secret: str) -> bool:
    """Return whether a secret appears in this repository."""
    return secret in PUBLISHED or secret.startswith(PUBLISHED_PREFIX) or secret.endswith(PUBLISHED_SUFFIXES)


def is_loopback(address: str) -> bool:
    """Return whether "HOST" or "HOST:PORT" is reachable from this machine only; of names, only localhost is.

    >>> [is_loopback(a) for a in ("127.0.0.1:8080", "[::1]:8080", "::1", "localhost", "0.0.0.0", "8080")]
    [True, True, True, True, False, False]
    """
    host = address
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        host = address.partition(":")[0]
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _secrets(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, str, str]]:
    """Yield each secret in force: its key, its source where that isn't the settings, and the secret itself."""
    for name, value in table.items():
        where = f"[{'.'.join(path)}] {name}"
        if isinstance(value, dict):
            yield from _secrets(value, (*path, name))
        elif name == "database_url" and value.startswith("postgresql"):
            yield from ((where, password.source, password.text) for password in postgres_passwords(value))
        elif name == "url":
            yield from ((where, "", password) for password in _passwords(value))
        elif name in _SECRET_KEYS:
            yield from ((where, "", secret) for named in _listed(value) for secret in _read(named, where))


def _listed(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    return [text for text in texts if isinstance(text, str)] if isinstance(texts, (list, tuple)) else []


def _read(named: str, where: str) -> Iterator[str]:
    try:
        yield read_secret(named, where).decode(errors="replace")
    except SettingsError:
        return  # this process can't read it, so it isn't in force here


def _passwords(urls: str) -> Iterator[str]:
    """Yield the passwords in a server's URLs. A broker URL without an account means RabbitMQ's own, guest."""
    for given in node_urls(urls):
        url = given
        if is_sentinel_url(given):
            sentinels = read(given)
            yield from [sentinels.password] if sentinels.password else []
            url = sentinels.redis_url
        try:
            parts = urlsplit(url)
            password, options = parts.password, parse_qs(parts.query)
        except ValueError:
            continue
        yield from options.get("password", [])
        if password is not None:
            yield unquote(password)
        elif parts.scheme in {"amqp", "amqps"} and "auth" not in options:
            yield "guest"
