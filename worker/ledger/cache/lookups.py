"""Connections to Redis that look up host names in threads of their own, one at a time for each name.

asyncio does all lookups of a process in one pool of threads, and a lookup can't be cancelled: a few that hang
would block those of the database and the broker, and the end of the process. Here a lookup that hangs blocks
one daemon thread, however many callers wait for that name.
"""

import asyncio
import socket
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread
from typing import Any, Final

from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

_Found = list[str] | Exception


class Lookups:
    """The pending lookups of host names, with a limit on their number."""

    def __init__(self, names_max: int) -> None:
        """Take the most host names to resolve at a time."""
        self._names_max: Final = names_max
        self._pending: Final[dict[str, asyncio.Future[_Found]]] = {}

    async def find(self, host: str) -> list[str]:
        """Return the addresses of a host, in the order to try them. Raises as the system's lookup does."""
        with suppress(ValueError):
            ip_address(host)
            return [host]
        if (lookup := self._pending.get(host)) is None:
            lookup = self._start(host)
        found = await asyncio.shield(lookup)
        if isinstance(found, Exception):
            raise found
        return found

    def _start(self, host: str) -> "asyncio.Future[_Found]":
        if len(self._pending) >= self._names_max:
            raise OSError(f"{self._names_max} names are being looked up already")
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[_Found] = loop.create_future()

        def finish(found: _Found) -> None:
            del self._pending[host]
            lookup.set_result(found)

        def run() -> None:
            found = _look_up(host)
            with suppress(RuntimeError):  # the loop is closed: no caller waits any more
                loop.call_soon_threadsafe(finish, found)

        Thread(target=run, name="cache name lookup", daemon=True).start()
        self._pending[host] = lookup
        return lookup


def _look_up(host: str) -> _Found:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001  (of any class, such as UnicodeError: `find` raises it to the caller)
        return error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class LookedUpConnection(Connection):
    """A connection over TCP whose host is looked up by `Lookups`."""

    def __init__(self, *, lookups: Lookups, **options: Any) -> None:
        """Take the lookups, and the options of redis-py's connections."""
        self._lookups: Final = lookups
        self._address = ""
        super().__init__(**options)

    async def _connect(self) -> None:
        """Connect to the first address that accepts the connection."""
        async with asyncio.timeout(self.socket_connect_timeout):
            failed: OSError = OSError("no address")
            for address in await self._lookups.find(self.host):
                self._address = address
                try:
                    await super()._connect()  # type: ignore[no-untyped-call]
                except OSError as error:
                    failed = error
                else:
                    return
            raise failed

    def _connection_arguments(self) -> dict[str, Any]:
        arguments = {**super()._connection_arguments(), "host": self._address}
        if "ssl" in arguments:  # the certificate is for the name, not for the address
            arguments["server_hostname"] = self.host
        return arguments


class LookedUpSSLConnection(LookedUpConnection, SSLConnection):
    """A LookedUpConnection over TLS."""


class LookedUpManagedConnection(LookedUpConnection, SentinelManagedConnection):
    """A LookedUpConnection to the primary that sentinels name."""


class LookedUpManagedSSLConnection(LookedUpConnection, SentinelManagedSSLConnection):
    """A LookedUpConnection to the primary that sentinels name, over TLS."""
