"""The broker's users with the permissions that operators are to give them, and no more."""

import asyncio
import json
from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from tests.support.paths import DEPLOY
from tests.support.servers import Servers


class Permissions(NamedTuple):
    """What a user may configure, write to and read from, each a pattern of names."""

    configure: str
    write: str
    read: str


DEFINITIONS: Final = DEPLOY / "rabbitmq" / "definitions.json"
PERMISSIONS: Final[Mapping[str, Permissions]] = {
    granted["user"]: Permissions(granted["configure"], granted["write"], granted["read"])
    for granted in json.loads(DEFINITIONS.read_text())["permissions"]
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
