"""Reads the fields of a request, and defines what happens to malformed ones.

Fields that money depends on (id, player, amount, currency, and everything signed) are read strictly, and a
malformed one is refused. All other fields are `Anything`: stored as an id if they are one, recorded otherwise,
so that no win is lost to them.
No error message quotes a value: it names the field, and what was expected.
"""

import codecs
import re
from typing import Annotated, Final
from urllib.parse import parse_qsl

import msgspec

from gateway.providers.base import TEXT_CHARACTERS_MAX, CallbackRejected, Id, Message, Text
from shared.errors import MoneyError
from shared.ids import ID_CHARACTERS_MAX, ROUND_ID_CHARACTERS_MAX, is_printable, storable_round_id
from shared.money import decimal_digits
from shared.outcome import OutcomeCode

FORM_FIELDS_MAX: Final = 64
LONE_SURROGATES_MAX: Final = 1_000
"""The number of lone surrogates that are replaced in one body; a body with more of them is refused."""

Anything = msgspec.Raw
"""A field that money does not depend on. It accepts any JSON value, so that none of them costs a player a win."""

ABSENT: Final = msgspec.Raw(b"null")
"""The value of such a field when it is missing."""

WholeNumber = Annotated[int, msgspec.Meta(ge=0)]
"""An integer of digits only (-0 is 0): a fraction, an exponent, a boolean or a leading zero is refused."""

IdOrNumber = Id | WholeNumber
"""An identifier that may also be sent as a whole number; see `id_text`."""


def decode(
    decoder: msgspec.json.Decoder[Message], body: bytes, too_deep: OutcomeCode = OutcomeCode.MALFORMED
) -> Message:
    """Decode JSON strictly, but tolerate a byte order mark and lone surrogates.

    Raises CallbackRejected, which names the fault and its place.

    `too_deep` is the outcome of a body that is nested too deeply to be decoded: UNAVAILABLE, so that the provider
    sends it again, if its signature has been verified.
    """
    try:
        # As text, because msgspec does not check the UTF-8 of fields that it skips or returns as Raw.
        text = body.decode()
        try:
            return decoder.decode(text)
        except msgspec.DecodeError:
            repaired = _without_lone_surrogates(text.removeprefix("\ufeff"))
            if repaired == text:
                raise
        return decoder.decode(repaired)
    except msgspec.DecodeError as error:
        raise CallbackRejected(OutcomeCode.MALFORMED, _without_quotes(str(error))) from None
    except UnicodeDecodeError as error:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise CallbackRejected(too_deep, "nested too deeply") from None


def _without_lone_surrogates(text: str) -> str:
    r"""Return JSON in which each escaped lone surrogate, such as a cut emoji leaves, is replaced by an escaped NUL.

    msgspec refuses lone surrogates even in fields that it skips. Fields that money depends on admit no NUL, so
    they stay refused; other fields are recorded with the escaped NUL.

    >>> _without_lone_surrogates(r'["won \ud83d", "\ud83d\ude00", "\\ud83d"]')
    '["won \\u0000", "\\ud83d\\ude00", "\\\\ud83d"]'
    """
    if "\\u" not in text or "\0" in text:
        return text
    # Escaped backslashes become raw NULs, which JSON never contains, so that no escape is seen after them.
    hidden = text.replace("\\\\", "\0")
    return _LONE_SURROGATE.sub(r"\\u0000", hidden, LONE_SURROGATES_MAX).replace("\0", "\\\\")


def decode_json_or_form(decoder: msgspec.json.Decoder[Message], body: bytes) -> Message:
    """Decode JSON or a form, whatever the content type claims. Raises CallbackRejected with the fault."""
    is_json = body.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
    return (decode if is_json else _decode_form)(decoder, body)


def _decode_form(decoder: msgspec.json.Decoder[Message], body: bytes) -> Message:
    """Decode a form, whose fields the schema sees as JSON strings."""
    try:
        fields = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )
    except ValueError:  # its text quotes the body
        raise CallbackRejected(OutcomeCode.MALFORMED, f"not a form of at most {FORM_FIELDS_MAX} fields") from None
    return decode(decoder, msgspec.json.encode(dict(fields)))


def _without_quotes(sentence: str) -> str:
    """Return msgspec's message, or only the field's path where the message may quote a value."""
    if _QUOTELESS.match(sentence):
        return sentence
    path = _PATH.search(sentence)
    return "not one of the known values" + (path[0] if path else "")


def lexeme(raw: msgspec.Raw, field: str) -> str:
    """Return a JSON number as written, or the text of a JSON string. Raises CallbackRejected for other values."""
    written = bytes(raw)
    if written[:1] == b'"':
        return decode(_text, written)
    return number_lexeme(raw, field)


def number_lexeme(raw: msgspec.Raw, field: str) -> str:
    """Return a JSON number as written: 5, 5.0 and 5.00 are three texts. Raises CallbackRejected for other values."""
    written = bytes(raw)
    if written[:1] not in _NUMBER_STARTS or len(written) > TEXT_CHARACTERS_MAX:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"{field}: not a number")
    return written.decode("ascii")


def id_text(given: str | int, field: str, characters_max: int = ID_CHARACTERS_MAX) -> str:
    """Return an id as text; a whole number becomes its digits, so 12 and "12" are the same. Raises CallbackRejected.

    The length of a text is already bounded by its type.
    """
    if isinstance(given, str):
        return given
    if len(digits := str(given)) > characters_max:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"{field}: more than {characters_max} digits")
    return digits


def fixed_decimals(text: str, field: str, decimals: int) -> str:
    """Return an amount with exactly `decimals` decimals, as some signatures cover it. Raises CallbackRejected.

    >>> [fixed_decimals(text, "amount", 2) for text in ("12.3", "12", "12.300", "1.23E1")]
    ['12.30', '12.00', '12.30', '12.30']
    """
    try:
        whole, fraction = decimal_digits(text)
    except MoneyError as error:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"{field}: {error}") from None
    if len(fraction) > decimals:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"{field}: more than {decimals} decimals")
    if text[0] == "0" and text[1:2].isdigit():
        raise CallbackRejected(OutcomeCode.MALFORMED, f"{field}: a zero too many at its start")
    return f"{whole.lstrip('0') or '0'}.{fraction.ljust(decimals, '0')}"


def scalar_text(raw: Anything) -> str:
    """Return a JSON string's text or a number as written, of any length; "" for any other value."""
    written = bytes(raw)
    if written[:1] == b'"':
        return _any_text.decode(written)
    return written.decode() if written[:1] in _NUMBER_STARTS else ""


def reference(raw: Anything, characters_max: int = ROUND_ID_CHARACTERS_MAX) -> str | None:
    """Return the id of a round, game, bet or session if it can be stored and looked up, else None."""
    text = scalar_text(raw)
    if len(text) > characters_max or not is_printable(text):
        return None
    return storable_round_id(text)


def raw_if_unusable(raw: Anything, usable: str | None) -> str | None:
    """Return the value as text for `details` if `reference` found no usable id in it, else None."""
    return raw_text(raw) if usable is None else None


def is_blank(raw: Anything) -> bool:
    """Return whether an optional value means nothing: null, false, zero or empty, or a text of one of these."""
    written = bytes(raw)
    if written in _BLANKS:
        return True
    return len(written) <= _BLANK_BYTES_MAX and written.translate(None, _QUOTES_AND_BLANKS).strip(b"0.") in _BLANKS


def raw_text(raw: Anything) -> str:
    """Return any JSON value as text for `details`: "" for null, a string's text, other values as written; shortened.

    A string that contains NUL, which PostgreSQL can't store, is also recorded as written.
    """
    written = bytes(raw)
    if written == b"null":
        return ""
    text = _any_text.decode(written) if written[:1] == b'"' else written.decode()
    return (written.decode() if "\0" in text else text)[:TEXT_CHARACTERS_MAX]


def bounded_details(**texts: str | None) -> dict[str, str]:
    """Return a credit's `details` from the texts given, each shortened to its bound, empty ones left out."""
    return {name: text[:TEXT_CHARACTERS_MAX] for name, text in texts.items() if text}


_HIGH: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE: Final = re.compile(rf"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")
_text = msgspec.json.Decoder(Text)
_any_text = msgspec.json.Decoder(str)
_NUMBER_STARTS: Final = frozenset(b"%c" % c for c in b"-0123456789")
_BLANKS: Final = frozenset({b"", b"null", b"false", b"[]", b"{}"})
_BLANK_BYTES_MAX: Final = 64
_QUOTES_AND_BLANKS: Final = b'" \t\r\n'
_QUOTELESS: Final = re.compile(r"(?:Expected |Object missing |JSON is malformed: |Input data was )")
_PATH: Final = re.compile(r" - at `\$[\w.\[\]]*`\Z", re.ASCII)
