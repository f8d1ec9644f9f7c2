"""Strict parsing of a callback's query: one that could be read in two ways is rejected."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from gateway.providers.base import CallbackRejected
from shared.outcome import OutcomeCode

QUERY_BYTES_MAX: Final = 4_096
QUERY_FIELDS_MAX: Final = 16

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def read_query(query: bytes) -> Mapping[str, str]:
    """Return the fields of a query by name. Raises CallbackRejected, whose detail quotes none of it.

    >>> read_query(b"walletSessionId=s%201&x=")
    {'walletSessionId': 's 1', 'x': ''}
    """
    if not query:
        return {}
    if len(query) > QUERY_BYTES_MAX:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"the query exceeds {QUERY_BYTES_MAX} bytes")
    if query.count(b"&") >= QUERY_FIELDS_MAX:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"the query has more than {QUERY_FIELDS_MAX} fields")
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise CallbackRejected(OutcomeCode.MALFORMED, "the query is not UTF-8") from None
    if b"%" in query and _BAD_ESCAPE.search(query):
        raise CallbackRejected(OutcomeCode.MALFORMED, "the query is not percent-encoded")
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise CallbackRejected(OutcomeCode.MALFORMED, "the query has a name that comes twice")
    return fields
