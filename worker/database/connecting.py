"""Connecting to one of several servers: all are asked at once, so a silent one keeps nobody from the others.

The driver asks one after the other within one time limit, which a server that is frozen or powered off takes
for itself. While one says nothing, the others are asked again: a replica may be promoted meanwhile.
"""

import asyncio
import os
import socket
from collections.abc import Iterable
from typing import Any, Final

import asyncpg

PRIMARY: Final = "primary"
"""What is looked for among several servers, unless the URL says otherwise: a replica can't post."""

_AMONG_ALL: Final = "prefer-standby"
"""Of which the driver decides when it has heard from every server."""


AGAIN_SECONDS: Final = 0.5
"""After this a server that has refused is asked again, as long as another has not said a word."""

SECONDS_MAX: Final = 60.0
"""The driver's own time limit, where there is none among the arguments."""

_REFUSALS: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""Our account, or the name of the database: waiting changes neither."""

_Attempt = asyncio.Future[asyncpg.Connection]


async def connect(**arguments: Any) -> asyncpg.Connection:
    """Return the first connection that a server accepts; the arguments are asyncpg's.

    Raises what asyncpg raises: where all servers fail, what says most of the fault.
    """
    hosts, ports = arguments.get("host"), arguments.get("port")
    if not isinstance(hosts, list) or arguments.get("target_session_attrs") == _AMONG_ALL:
        return await _connect(arguments)
    if not isinstance(ports, list):
        ports = [ports] * len(hosts)
    sought = {"target_session_attrs": PRIMARY, **arguments}
    unheard = set(range(len(hosts)))
    attempts: list[_Attempt] = [
        asyncio.create_task(_ask({**sought, "host": host, "port": port}, number, unheard))
        for number, (host, port) in enumerate(zip(hosts, ports, strict=True))
    ]
    try:
        first = await _first(attempts)
        attempts.remove(first)
        return first.result()
    finally:
        for attempt in attempts:
            attempt.add_done_callback(_give_up)
            attempt.cancel()


async def _ask(arguments: dict[str, Any], number: int, unheard: set[int]) -> asyncpg.Connection:
    """Return a connection to one server, which is asked again while others are unheard. Raises as asyncpg."""
    now = asyncio.get_running_loop().time
    deadline = now() + (arguments.get("timeout") or SECONDS_MAX)
    while True:
        try:
            return await _connect({**arguments, "timeout": deadline - now()})
        except Exception as error:
            unheard.discard(number)
            is_final = isinstance(error, _REFUSALS)
            if is_final or not unheard:
                raise
            await asyncio.sleep(AGAIN_SECONDS)
            if not unheard or now() >= deadline:
                raise


async def _connect(arguments: dict[str, Any]) -> asyncpg.Connection:
    """Return a connection. Raises as asyncpg, and names the host where the fault does not.

    A refused connection has an address in its words; a name without an address, and silence, have neither.
    """
    try:
        return await asyncpg.connect(**arguments)
    except socket.gaierror as error:
        raise socket.gaierror(error.errno, f"{_named(arguments)}: {error.strerror}") from error
    except TimeoutError as error:
        raise TimeoutError(f"{_named(arguments)}: no answer in time") from error


def _named(arguments: dict[str, Any]) -> str:
    hosts = arguments.get("host") or os.environ.get("PGHOST", "this machine")
    return ", ".join(hosts) if isinstance(hosts, list) else str(hosts)


async def _first(attempts: Iterable[_Attempt]) -> _Attempt:
    """Return the first attempt that succeeds. Raises where all fail."""
    waiting, errors = set(attempts), list[BaseException]()
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for attempt in done:
            if (error := attempt.exception()) is None:
                return attempt
            errors.append(error)
    raise min(errors, key=_says_little)


def _give_up(attempt: _Attempt) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().terminate()


def _says_little(error: BaseException) -> int:
    """Rank an error: what a server says of our URL tells more than that another is down."""
    if isinstance(error, _REFUSALS):
        return 0
    return 2 if isinstance(error, asyncpg.TargetServerAttributeNotMatched) else 1
