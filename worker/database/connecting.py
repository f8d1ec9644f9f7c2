"""Connects to the first suitable one of several servers, trying all at once.

The driver tries one server after the other within one time limit, all of which a frozen or powered-off server
uses up. While a server has not answered, those that refused are tried again, because a replica among them may
be promoted meanwhile.
"""

import asyncio
import os
import socket
from collections.abc import Iterable
from typing import Any, Final

import asyncpg

PRIMARY: Final = "primary"
"""The server to connect to among several, unless the URL asks for another kind: a replica can't post."""

_COMPARES_ALL: Final = "prefer-standby"
"""A choice that depends on the answers of all servers, so it is left to the driver."""

RETRY_SECONDS: Final = 0.5
"""How long after a refusal a server is tried again, while another server has not answered."""

SECONDS_MAX: Final = 60.0
"""The driver's default time limit, for when the arguments have none."""

_REFUSALS: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""A wrong account or database name, which no retry can change."""

_Attempt = asyncio.Future[asyncpg.Connection]


async def connect(**arguments: Any) -> asyncpg.Connection:
    """Return the first connection that a server accepts; the arguments are asyncpg's.

    Raises as asyncpg does; if all servers fail, the most specific of their errors.
    """
    hosts, ports = arguments.get("host"), arguments.get("port")
    if not isinstance(hosts, list) or arguments.get("target_session_attrs") == _COMPARES_ALL:
        return await _connect(arguments)
    if not isinstance(ports, list):
        ports = [ports] * len(hosts)
    common = {"target_session_attrs": PRIMARY, **arguments}
    unanswered = set(range(len(hosts)))
    attempts: list[_Attempt] = [
        asyncio.create_task(_connect_with_retries({**common, "host": host, "port": port}, number, unanswered))
        for number, (host, port) in enumerate(zip(hosts, ports, strict=True))
    ]
    try:
        first = await _first(attempts)
        attempts.remove(first)
        return first.result()
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_discard)
            attempt.cancel()


async def _connect_with_retries(arguments: dict[str, Any], number: int, unanswered: set[int]) -> asyncpg.Connection:
    """Return a connection to one server, retrying while other servers have not answered. Raises as asyncpg does."""
    now = asyncio.get_running_loop().time
    deadline = now() + (arguments.get("timeout") or SECONDS_MAX)
    while True:
        try:
            return await _connect({**arguments, "timeout": deadline - now()})
        except Exception as error:
            unanswered.discard(number)
            if isinstance(error, _REFUSALS) or not unanswered:
                raise
            await asyncio.sleep(RETRY_SECONDS)
            if not unanswered or now() >= deadline:
                raise


async def _connect(arguments: dict[str, Any]) -> asyncpg.Connection:
    """Return a connection. Raises as asyncpg does, and adds the host to errors that don't name it.

    The error of a refused connection has an address; that of a failed name lookup or of a timeout has none.
    """
    try:
        return await asyncpg.connect(**arguments)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{_host_names(arguments)}: {error.strerror}") from error
    except TimeoutError as error:
        raise TimeoutError(f"{_host_names(arguments)}: no answer in time") from error


def _host_names(arguments: dict[str, Any]) -> str:
    hosts = arguments.get("host") or os.environ.get("PGHOST", "this machine")
    return ", ".join(hosts) if isinstance(hosts, list) else str(hosts)


async def _first(attempts: Iterable[_Attempt]) -> _Attempt:
    """Return the first attempt that succeeds. Raises the most specific error if all fail."""
    waiting, errors = set(attempts), list[BaseException]()
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            if (error := attempt.exception()) is None:
                return attempt
            errors.append(error)
    raise min(errors, key=_vagueness)


def _discard(attempt: _Attempt) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def _vagueness(error: BaseException) -> int:
    """Return the rank of an error: one about the URL comes before one about a server that is down."""
    if isinstance(error, _REFUSALS):
        return 0
    return 2 if isinstance(error, asyncpg.TargetServerAttributeNotMatched) else 1
