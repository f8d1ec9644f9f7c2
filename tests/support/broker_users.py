"""The broker's users with the permissions of docs/operations/security.md, and no more."""

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tests.servers import Servers


class Permissions(NamedTuple):
    """What a user may configure, write to and read from, each a pattern of names."""

    configure: str
    write: str
    read: str


PERMISSIONS: Final[Mapping[str, Permissions]] = {
    "gateway": Permissions(r"^amq\.gen-", "^credits$", r"^amq\.gen-"),
    "worker": Permissions(r"^credits(\..+)?$", r"^(credits\.shard\.\d+|amq\.default)$", r"^credits(\..+)?$"),
}


async def url_of(servers: Servers, vhost_url: str, user: str, permissions: Permissions | None = None) -> str:
    """Make a user of that name on a virtual host, with its permissions or others; return the URL for it."""
    parts = urlsplit(vhost_url)
    vhost = parts.path.removeprefix("/")
    name = f"{user}-{vhost}"
    await _ctl(servers, "add_user", name, name)
    await _ctl(servers, "set_permissions", "-p", vhost, name, *(permissions or PERMISSIONS[user]))
    return urlunsplit(parts._replace(netloc=f"{name}:{name}@{parts.hostname}:{parts.port}"))


async def _ctl(servers: Servers, *command: str) -> None:
    await asyncio.to_thread(servers.rabbitmq.run, "rabbitmqctl", "--quiet", *command)
