"""The error replies of the operator API (RFC 9457): each has a status, a stable code, and a sentence for people."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

JSON: Final = "application/json"
PROBLEM_JSON: Final = "application/problem+json"
RETRY_SECONDS: Final = 1
"""The `Retry-After` of a 503 reply."""


class Code(StrEnum):
    """A problem's code, for programs. The set is closed: a code is never renamed, and new ones are announced."""

    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    THROTTLED = "throttled"
    NO_SUCH_PATH = "no_such_path"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    INVALID_ID = "invalid_id"
    INVALID_QUERY = "invalid_query"
    INVALID_CURSOR = "invalid_cursor"
    MALFORMED_JSON = "malformed_json"
    BODY_TOO_LARGE = "body_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_BODY = "invalid_body"
    UNKNOWN_CURRENCY = "unknown_currency"
    UNKNOWN_INTEGRATION = "unknown_integration"
    UNKNOWN_PLAYER = "unknown_player"
    UNKNOWN_SESSION = "unknown_session"
    UNKNOWN_TRANSFER = "unknown_transfer"
    UNKNOWN_ROUND = "unknown_round"
    NOT_PAID = "not_paid"
    NO_WALLETS = "no_wallets"
    SESSION_ENDED = "session_ended"
    SESSION_OF_ANOTHER = "session_of_another"
    UNKNOWN_CELL = "unknown_cell"
    SEVERAL_CELLS = "several_cells"
    UNAVAILABLE = "unavailable"
    DEFECT = "defect"


class ProblemType(NamedTuple):
    """The status and the title that every problem of one code has."""

    status: int
    title: str


PROBLEM_TYPES: Final[Mapping[Code, ProblemType]] = {
    Code.UNAUTHORIZED: ProblemType(401, "A bearer token of the settings is needed"),
    Code.FORBIDDEN: ProblemType(403, "The user's role may not do this"),
    Code.THROTTLED: ProblemType(429, "Too many requests were refused"),
    Code.NO_SUCH_PATH: ProblemType(404, "Nothing is at this path"),
    Code.METHOD_NOT_ALLOWED: ProblemType(405, "The path does not answer this method"),
    Code.INVALID_ID: ProblemType(400, "A part of the path is no id"),
    Code.INVALID_QUERY: ProblemType(400, "The query is wrong"),
    Code.INVALID_CURSOR: ProblemType(400, "The cursor is none of this list"),
    Code.MALFORMED_JSON: ProblemType(400, "The body is not JSON"),
    Code.BODY_TOO_LARGE: ProblemType(413, "The body is too large"),
    Code.UNSUPPORTED_MEDIA_TYPE: ProblemType(415, "The body must be JSON"),
    Code.INVALID_BODY: ProblemType(422, "The body is not what is needed here"),
    Code.UNKNOWN_CURRENCY: ProblemType(422, "The currency is not known"),
    Code.UNKNOWN_INTEGRATION: ProblemType(404, "The integration is not configured"),
    Code.UNKNOWN_PLAYER: ProblemType(404, "There is no such player"),
    Code.UNKNOWN_SESSION: ProblemType(404, "There is no such session"),
    Code.UNKNOWN_TRANSFER: ProblemType(404, "There is no such transfer"),
    Code.UNKNOWN_ROUND: ProblemType(404, "No win of this round is posted"),
    Code.NOT_PAID: ProblemType(404, "Not paid: no such transfer"),
    Code.NO_WALLETS: ProblemType(409, "The player has no wallets in this currency"),
    Code.SESSION_ENDED: ProblemType(409, "The session was closed, and an id names one session"),
    Code.SESSION_OF_ANOTHER: ProblemType(409, "The session has another player or currency, which never changes"),
    Code.UNKNOWN_CELL: ProblemType(404, "There is no such cell"),
    Code.SEVERAL_CELLS: ProblemType(409, "It may be in several cells"),
    Code.UNAVAILABLE: ProblemType(503, "No answer from the books now"),
    Code.DEFECT: ProblemType(500, "A defect of this service"),
}


class Problem(msgspec.Struct, frozen=True):
    """An error reply: the reason why a request failed (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Code


class Reply(NamedTuple):
    """A reply to a request: a status, and content that is encoded as JSON unless it is bytes."""

    status: int
    content: Any
    media_type: str = JSON
    headers: Mapping[str, str] = {}


class ProblemError(Exception):
    """A request is invalid, not allowed, or can't be served now. Results of the database are values instead."""

    def __init__(self, code: Code, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Take the problem's code, the detail for people, and further headers of the reply."""
        super().__init__(detail)
        self.reply: Final = problem_reply(code, detail, headers)


def problem_reply(code: Code, detail: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return the error reply with this code, its status and its title."""
    status, title = PROBLEM_TYPES[code]
    problem = Problem(f"urn:credits:problem:{code}", title, status, detail, code)
    return Reply(status, problem, PROBLEM_JSON, headers or {})


def unavailable_reply(detail: str) -> Reply:
    """Return a 503 reply, whose header tells the client when to retry."""
    return problem_reply(Code.UNAVAILABLE, detail, {"Retry-After": str(RETRY_SECONDS)})


def throttled_error(seconds: int) -> ProblemError:
    """Return the error for a 429 reply, whose header tells the client to retry after this many seconds."""
    detail = f"too many requests were refused; ask again in {seconds} s"
    return ProblemError(Code.THROTTLED, detail, {"Retry-After": str(seconds)})
