"""Overload is shed before a request costs a task: a refusal here costs a tenth of a win.

On the way of a win, through a task and the adapter, a refusal took a quarter of one, and at three times what
a gateway can pay little was left to pay with.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.endpoint import CallbackEndpoint
from gateway.ledger_client.client import LedgerClient
from shared.http import Interceptor, Request


class LoadShedder(Interceptor):
    """Tells callbacks to ask again while the ledger is overloaded."""

    def __init__(self, ledger: LedgerClient, callbacks: Mapping[str, CallbackEndpoint]) -> None:
        """Take whom the callbacks ask, and what answers them, by path."""
        self._ledger: Final = ledger
        self._callbacks: Final = {path.encode(): endpoint for path, endpoint in callbacks.items()}
        self._let_through: Final = set[int]()
        """The hashes of path and body: copies share one question, so they count once."""

        self._is_open = True

    @property
    def paths(self) -> Iterable[bytes]:
        """The paths of the callbacks that it may turn away."""
        return self._callbacks.keys()

    def answer(self, request: Request) -> bytes | None:
        """Return the response to a callback that is told to ask again, or None where it is to be heard.

        Only what came whole in one piece is turned away here; the rest is when its turn comes.
        All that is read in one turn of the loop is asked after it, so what was let through is counted as if
        it had been asked already; and once there is no room, there is none until the next turn.
        """
        if self._is_open and self._has_room(request):
            return None
        if request.method != b"POST" or (endpoint := self._callbacks.get(request.path)) is None:
            return None
        return endpoint.shed(bytes(request.body))

    def _has_room(self, request: Request) -> bool:
        """Let one more through, if the ledger is not overloaded."""
        if not self._let_through:  # the first of this turn: had it found no room, none would be looked for
            asyncio.get_running_loop().call_soon(self._end_turn)
        asked = hash((request.path, bytes(request.body)))
        if asked in self._let_through:
            return True
        self._is_open = not self._ledger.is_overloaded(len(self._let_through))
        if self._is_open:
            self._let_through.add(asked)
        return self._is_open

    def _end_turn(self) -> None:
        """Count no more what has been let through: it asks in this turn."""
        self._let_through.clear()
        self._is_open = True
