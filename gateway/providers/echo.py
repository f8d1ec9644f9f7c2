"""Reads the one text field that an error reply repeats, even from a request that is otherwise malformed."""

from codecs import BOM_UTF8
from typing import Any, Final

import msgspec

from gateway.providers.base import TEXT_CHARACTERS_MAX, CallbackRejected
from gateway.providers.fields import ABSENT, Anything, decode, lexeme


class Echo:
    """Reads one field of a JSON object if it is a text of bounded length; never raises."""

    def __init__(self, name: str) -> None:
        """Take the field's name."""
        self._name: Final = name
        self._mark: Final = name.encode()
        field = "text", Anything, msgspec.field(name=name, default=ABSENT)
        self._decoder: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(msgspec.defstruct("Echoed", [field]))

    def read(self, body: bytes) -> dict[str, str]:
        """Return the field as a dict to merge into a reply; an empty dict if it can't be read."""
        if self._mark not in body:  # much faster than decoding
            return {}
        try:  # not `decode`: its error texts, which nobody would see, cost several times as much
            written = bytes(self._decoder.decode(body.decode()).text)
            text = _text.decode(written) if written.startswith(b'"') else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._read_leniently(body)
        if text is None or len(text) > TEXT_CHARACTERS_MAX or "\0" in text:
            return {}
        return {self._name: text}

    def _read_leniently(self, body: bytes) -> dict[str, str]:
        """Read a body that only `decode` accepts, because of a byte order mark or a lone surrogate."""
        if not (body.startswith(BOM_UTF8) or b"\\u" in body):
            return {}
        try:
            written = decode(self._decoder, body).text
            return {self._name: lexeme(written, self._name)} if bytes(written)[:1] == b'"' else {}
        except CallbackRejected:
            return {}


_text: Final = msgspec.json.Decoder(str)
