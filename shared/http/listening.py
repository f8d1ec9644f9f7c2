"""The sockets that a server listens on, bound before anything is served, so that a fault is one line."""

import socket
from typing import Final

from shared.errors import SettingsError

BACKLOG: Final = 65_535
"""So many connections may wait to be accepted; the kernel allows as many as net.core.somaxconn says."""


def listen(host: str, port: int, setting: str) -> list[socket.socket]:
    """Return listening sockets on every address that `host` has.

    Raises SettingsError, which names the `setting` that the port comes from, when one can't be had.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            sockets.append(_listening(family, address))
    except (OSError, UnicodeError) as error:  # the latter for a name that no host can have
        for each in sockets:
            each.close()
        reason = (error.strerror if isinstance(error, OSError) else None) or "no such host"
        raise SettingsError(f"{setting}: can't listen on {host}:{port}: {reason.lower()}") from None
    return sockets


def _listening(family: int, address: object) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)  # type: ignore[arg-type]  # as getaddrinfo gave it
        made.listen(BACKLOG)
        made.settimeout(0)
    except OSError:
        made.close()
        raise
    return made
