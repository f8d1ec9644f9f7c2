"""One operation of the API: all that its route and its part of the document are made from."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from shared.cached_call import CachedCall
from shared.money import Currencies
from shared.readiness import Obstacles
from shared.settings import Role, Settings
from worker.operator.cells import Cells
from worker.operator.metrics import OperatorMetrics
from worker.operator.problems import Code, Reply
from worker.operator.throttle import Throttle, ThrottleLog


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers work with."""

    cells: Cells
    settings: Settings
    currencies: Currencies
    metrics: OperatorMetrics
    throttle: Throttle
    throttle_log: ThrottleLog
    obstacles: CachedCall[Obstacles]
    """By cell, why the books don't answer, or None where they do."""


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No query parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A method of a path.

    The handler takes a Desk, the ids of the path by their names, `query` and `body` where there are any,
    `cell` where it asks the books, and `by`, who acts, where it changes anything.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Callable[..., Awaitable[Reply]]
    answers: Mapping[int, Any]
    """The type of the content, by status; bytes for what is no JSON."""

    problems: tuple[Code, ...] = ()
    """What it may answer beside the codes that follow from its form."""

    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    role: Role = Role.SUPPORT
    """The lowest role that may do it."""

    is_open: bool = False
    """Answered without a token."""

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"

    @property
    def asks_cells(self) -> bool:
        """Whether it asks the books, of which there are some in each cell."""
        return not self.is_open

    parameters: tuple[str, ...] = field(init=False)
    """The names of the path's ids."""

    def __post_init__(self) -> None:
        """Read the names out of the path."""
        names = tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))
        object.__setattr__(self, "parameters", names)

    @property
    def codes(self) -> frozenset[Code]:
        """Every code that it may answer."""
        codes = {*self.problems, Code.INVALID_QUERY, Code.DEFECT, Code.UNAVAILABLE}
        codes |= set() if self.is_open else {Code.UNAUTHORIZED, Code.THROTTLED}
        codes |= set() if self.is_open or self.role is Role.SUPPORT else {Code.FORBIDDEN}
        codes |= {Code.UNKNOWN_CELL, Code.SEVERAL_CELLS} if self.asks_cells else set()
        codes |= {Code.INVALID_ID} if self.parameters else set()
        codes |= {Code.INVALID_CURSOR} if "cursor" in self.query.__struct_fields__ else set()
        codes |= _BODY_CODES if self.body else set()
        return frozenset(codes)


_BODY_CODES = frozenset({Code.BODY_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE, Code.MALFORMED_JSON, Code.INVALID_BODY})
