"""Connections to Redis whose server's name is looked up in a thread of its own, one at a time for each name.

asyncio looks names up in the threads that all lookups of the process share, and a lookup can't be cancelled:
a few that hang would hold up the database's and the broker's, and the end of the process. Here a lookup that
hangs keeps one daemon thread, however often its name is asked for.
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
    """The lookups that are under way, of names that are servers of one kind."""

    def __init__(self, names_max: int) -> None:
        """Take how many names may be looked up at a time."""
        self._names_max: Final = names_max
        self._under_way: Final[dict[str, asyncio.Future[_Found]]] = {}

    async def find(self, host: str) -> list[str]:
        """Return the addresses of a host, in the order to try them. Raises what the system's lookup does."""
        with suppress(ValueError):
            ip_address(host)
            return [host]
        if (lookup := self._under_way.get(host)) is None:
            lookup = self._start(host)
        found = await asyncio.shield(lookup)
        if isinstance(found, Exception):
            raise found
        return found

    def _start(self, host: str) -> "asyncio.Future[_Found]":
        if len(self._under_way) >= self._names_max:
            raise OSError(f"{self._names_max} names are being looked up already")
        loop = asyncio.get_running_loop()
        lookup: asyncio.Future[_Found] = loop.create_future()

        def finish(found: _Found) -> None:
            del self._under_way[host]
            lookup.set_result(found)

        def run() -> None:
            found = _look_up(host)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(finish, found)

        Thread(target=run, name="cache name lookup", daemon=True).start()
        self._under_way[host] = lookup
        return lookup


def _look_up(host: str) -> _Found:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001  (a UnicodeError among others, which whoever waits is to get)
        return error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class LookedUpConnection(Connection):
    """A connection over TCP that looks its host up by `Lookups`."""

    def __init__(self, *, lookups: Lookups, **options: Any) -> None:
        """Take what looks names up, and what redis-py's connections take."""
        self._lookups: Final = lookups
        self._address = ""
        super().__init__(**options)

    async def _connect(self) -> None:
        """Connect to the first address that takes the connection."""
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
        if "ssl" in arguments:  # the certificate is verified by the name
            arguments["server_hostname"] = self.host
        return arguments


class LookedUpSSLConnection(LookedUpConnection, SSLConnection):
    """The same over TLS."""


class LookedUpManagedConnection(LookedUpConnection, SentinelManagedConnection):
    """The same to the primary that sentinels name."""


class LookedUpManagedSSLConnection(LookedUpConnection, SentinelManagedSSLConnection):
    """The same to the primary that sentinels name, over TLS."""
