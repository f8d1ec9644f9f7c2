"""The type of one operation of the API, from which its route and its part of the OpenAPI document are made."""

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
    """The objects that handlers share: databases, settings, metrics and limits."""

    cells: Cells
    settings: Settings
    currencies: Currencies
    metrics: OperatorMetrics
    throttle: Throttle
    throttle_log: ThrottleLog
    obstacles: CachedCall[Obstacles]
    """The readiness of each cell: why its database can't be used, or None if it can."""


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an operation that has no parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An HTTP method of a path, and the handler that serves it.

    The handler takes Services, then by name: the ids of the path, `query` and `body` if the operation has them,
    `cell` if it uses a cell's database, and `by`, the user who acts, if it is a write.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Callable[..., Awaitable[Reply]]
    responses: Mapping[int, Any]
    """The type of the content, by HTTP status: bytes for content that is not JSON."""

    problems: tuple[Code, ...] = ()
    """The problems that only this operation has; `problem_codes` adds those that follow from its form."""

    query: type[msgspec.Struct] = NoQuery
    body: type[msgspec.Struct] | None = None
    role: Role = Role.SUPPORT
    """The lowest role that is allowed to call it."""

    is_public: bool = False
    """Whether it is served without a token."""

    @property
    def is_write(self) -> bool:
        """Whether it changes data. Then it is in the audit log under the user who acts."""
        return self.method != "GET"

    @property
    def uses_cells(self) -> bool:
        """Whether it uses the database of a cell, and so takes the query parameter `cell`."""
        return not self.is_public

    parameters: tuple[str, ...] = field(init=False)
    """The names of the ids in the path, in their order."""

    def __post_init__(self) -> None:
        """Parse the names of the ids in the path."""
        names = tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))
        object.__setattr__(self, "parameters", names)

    @property
    def problem_codes(self) -> frozenset[Code]:
        """Every problem code that it may reply with."""
        codes = {*self.problems, Code.INVALID_QUERY, Code.DEFECT, Code.UNAVAILABLE}
        codes |= set() if self.is_public else {Code.UNAUTHORIZED, Code.THROTTLED}
        codes |= set() if self.is_public or self.role is Role.SUPPORT else {Code.FORBIDDEN}
        codes |= {Code.UNKNOWN_CELL, Code.SEVERAL_CELLS} if self.uses_cells else set()
        codes |= {Code.INVALID_ID} if self.parameters else set()
        codes |= {Code.INVALID_CURSOR} if "cursor" in self.query.__struct_fields__ else set()
        codes |= _BODY_CODES if self.body else set()
        return frozenset(codes)


_BODY_CODES = frozenset({Code.BODY_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE, Code.MALFORMED_JSON, Code.INVALID_BODY})
