"""Binds a server's sockets before anything is served, so that a fault is reported in one line."""

import socket
from typing import Final

from shared.errors import SettingsError

BACKLOG: Final = 65_535
"""The number of connections that may wait to be accepted; the kernel caps it at net.core.somaxconn."""


def listen(host: str, port: int, setting: str) -> list[socket.socket]:
    """Return listening sockets on every address of `host`.

    Raises SettingsError, which names the `setting` of the port, if one of them can't be bound.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(_bind(family, address))
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        for each in sockets:
            each.close()
        reason = (error.strerror if isinstance(error, OSError) else None) or "no such host"
        raise SettingsError(f"{setting}: can't listen on {host}:{port}: {reason.lower()}") from None
    return sockets


def _bind(family: int, address: object) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)  # type: ignore[arg-type]  # from getaddrinfo
        listener.listen(BACKLOG)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    return listener
