"""The fields of a request: how each kind is read, and what becomes of one that is not as it should be.

What money needs (its id, player, amount and currency, and all that is signed) is read strictly, and refused
where it is none. All else is `Anything`: it is stored as an id where it is one, or else recorded, and costs
no win.
No refusal quotes what came: it says where, and what was expected.
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
"""Halves of surrogate pairs that are read in one body; one with more of them is refused."""

Anything = msgspec.Raw
"""A field that the money does not depend on. It holds any JSON value: none of them costs a player a win."""

ABSENT: Final = msgspec.Raw(b"null")
"""The value of such a field where there is none."""

WholeNumber = Annotated[int, msgspec.Meta(ge=0)]
"""Digits alone (-0 is 0): a fraction, an exponent or a boolean is refused, and zeros in front are no JSON."""

IdOrNumber = Id | WholeNumber
"""An identifier that may come as a whole number: see `id_text`."""


def decode(
    decoder: msgspec.json.Decoder[Message], body: bytes, too_deep: OutcomeCode = OutcomeCode.MALFORMED
) -> Message:
    """Read JSON strictly, but for a byte order mark and halves of surrogate pairs.

    Raises Refused with what is wrong and where.

    `too_deep` is the result of a body that is nested deeper than can be read: UNAVAILABLE, so that the
    provider asks again, for one whose signature is known to be good.
    """
    try:
        # As text, because msgspec passes over bytes that are no UTF-8 where it keeps nothing, or a Raw.
        text = body.decode()
        try:
            return decoder.decode(text)
        except msgspec.DecodeError:
            mended = _without_lone_surrogates(text.removeprefix("\ufeff"))
            if mended == text:
                raise
        return decoder.decode(mended)
    except msgspec.DecodeError as error:
        raise CallbackRejected(OutcomeCode.MALFORMED, _without_values(str(error))) from None
    except UnicodeDecodeError as error:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise CallbackRejected(too_deep, "nested too deeply") from None


def _without_lone_surrogates(text: str) -> str:
    r"""Return JSON with a NUL for each escaped half of a surrogate pair, such as a text cut in an emoji has.

    msgspec refuses those even in fields that it skips. What the money needs admits no NUL, so it stays
    refused there; all else is recorded with the NUL as an escape.

    >>> _without_lone_surrogates(r'["won \ud83d", "\ud83d\ude00", "\\ud83d"]')
    '["won \\u0000", "\\ud83d\\ude00", "\\\\ud83d"]'
    """
    if "\\u" not in text or "\0" in text:
        return text
    # An escaped backslash is hidden behind a raw NUL, which JSON never holds: what follows it is no escape.
    hidden = text.replace("\\\\", "\0")
    return _LONE_SURROGATE.sub(r"\\u0000", hidden, LONE_SURROGATES_MAX).replace("\0", "\\\\")


def decode_json_or_form(decoder: msgspec.json.Decoder[Message], body: bytes) -> Message:
    """Read JSON or a form, whatever its content type is said to be. Raises Refused with what is wrong."""
    is_json = body.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"{")
    return (decode if is_json else _decode_form)(decoder, body)


def _decode_form(decoder: msgspec.json.Decoder[Message], body: bytes) -> Message:
    """Read a form, whose fields are JSON strings to the schema."""
    try:
        fields = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FORM_FIELDS_MAX,
        )
    except ValueError:  # whose text quotes the body
        raise CallbackRejected(OutcomeCode.MALFORMED, f"not a form of at most {FORM_FIELDS_MAX} fields") from None
    return decode(decoder, msgspec.json.encode(dict(fields)))


def _without_values(sentence: str) -> str:
    """Return what msgspec says, or of a sentence that may quote a value the field's path alone."""
    if _QUOTES_NOTHING.match(sentence):
        return sentence
    path = _PATH.search(sentence)
    return "not one of the known values" + (path[0] if path else "")


def lexeme(raw: msgspec.Raw, field: str) -> str:
    """Return a JSON number as it was written, or the text of a JSON string. Raises Refused for others."""
    written = bytes(raw)
    if written[:1] == b'"':
        return decode(_text, written)
    return number_lexeme(raw, field)


def number_lexeme(raw: msgspec.Raw, field: str) -> str:
    """Return a JSON number as it was written: 5, 5.0 and 5.00 are three texts. Raises Refused for others."""
    written = bytes(raw)
    if written[:1] not in _NUMBER_STARTS or len(written) > TEXT_CHARACTERS_MAX:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"{field}: not a number")
    return written.decode("ascii")


def id_text(given: str | int, field: str, characters_max: int = ID_CHARACTERS_MAX) -> str:
    """Return an id as text: a whole number is the id of its digits, so 12 and "12" are one. Raises Refused.

    A text is bounded by its type already.
    """
    if isinstance(given, str):
        return given
    if len(digits := str(given)) > characters_max:
        raise CallbackRejected(OutcomeCode.MALFORMED, f"{field}: more than {characters_max} digits")
    return digits


def fixed_decimals(text: str, field: str, decimals: int) -> str:
    """Return an amount as it is signed where exactly so many decimals are. Raises Refused.

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


def spoken(raw: Anything) -> str:
    """Return a JSON string's text or a number as it was written, of any length, and "" for all else."""
    written = bytes(raw)
    if written[:1] == b'"':
        return _any_text.decode(written)
    return written.decode() if written[:1] in _NUMBER_STARTS else ""


def reference(raw: Anything, characters_max: int = ROUND_ID_CHARACTERS_MAX) -> str | None:
    """Return a round, game, bet or session as it can be stored and looked up, or None where it can't."""
    text = spoken(raw)
    if len(text) > characters_max or not is_printable(text):
        return None
    return storable_round_id(text)


def unusable(raw: Anything, usable: str | None) -> str | None:
    """Return for the record what was said where `reference` found nothing to look up."""
    return raw_text(raw) if usable is None else None


def says_nothing(raw: Anything) -> bool:
    """Tell whether an optional value is as good as absent: null, false, zero, or empty, as a text too."""
    written = bytes(raw)
    if written in _NOTHING:
        return True
    return len(written) <= _NOTHING_BYTES_MAX and written.translate(None, _AROUND).strip(b"0.") in _NOTHING


def raw_text(raw: Anything) -> str:
    """Return any JSON value for the record: "" for null, a string's text, anything else as written, cut.

    A string with a NUL in it, which PostgreSQL can't store, is recorded as it was written, too.
    """
    written = bytes(raw)
    if written == b"null":
        return ""
    text = _any_text.decode(written) if written[:1] == b'"' else written.decode()
    return (written.decode() if "\0" in text else text)[:TEXT_CHARACTERS_MAX]


def bounded_details(**said: str | None) -> dict[str, str]:
    """Return a credit's `details`: what the provider said of these, cut to a bounded length."""
    return {name: text[:TEXT_CHARACTERS_MAX] for name, text in said.items() if text}


_HIGH: Final = r"\\u[dD][89abAB][0-9a-fA-F]{2}"
_LOW: Final = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE_SURROGATE: Final = re.compile(rf"{_HIGH}(?!{_LOW})|(?<!{_HIGH}){_LOW}")
_text = msgspec.json.Decoder(Text)
_any_text = msgspec.json.Decoder(str)
_NUMBER_STARTS: Final = frozenset(b"%c" % c for c in b"-0123456789")
_NOTHING: Final = frozenset({b"", b"null", b"false", b"[]", b"{}"})
_NOTHING_BYTES_MAX: Final = 64
_AROUND: Final = b'" \t\r\n'
_QUOTES_NOTHING: Final = re.compile(r"(?:Expected |Object missing |JSON is malformed: |Input data was )")
_PATH: Final = re.compile(r" - at `\$[\w.\[\]]*`\Z", re.ASCII)
