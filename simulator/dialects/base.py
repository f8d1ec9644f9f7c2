"""How a provider speaks, from its own side: how it signs, what it makes of replies, when it sends a win again.

Each dialect is written from the provider's own pages, not from the gateway's file for that provider, so that a
mistake in the one does not stand in the other. Conformance tests, simulator and benchmark all speak by it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Final, Self

import msgspec

from gateway.providers.base import Callback, IntegrationSettings, Provider
from simulator.dialects.values import Altered, Facts, HttpResponse, Paid, Reading, ReplyMismatchError, Retries
from simulator.history import ReplyMeaning

KEY: Final = b"the-secret-in-force"
PREVIOUS_KEY: Final = b"the-secret-before"
FOREIGN_KEY: Final = b"somebody-elses-secret"
SECRETS: Final = (KEY.decode(), PREVIOUS_KEY.decode())

IN_DOLLARS: Final = "-in-dollars"
NEXT: Final = "-next"
"""What a player's session is followed by to name their session in dollars, and their next one in euro."""

Fields = Mapping[str, Any]


class Dialect(ABC):
    """One provider, with one account's settings and secrets. Its module names one as DIALECT, for the tests."""

    name: ClassVar[str]
    """As in the registry of the gateway's providers, and as this module is named."""

    path: ClassVar[str]
    """Where a win is sent, after `/NAME/`."""

    account: ClassVar[Mapping[str, Any]] = {}
    """The settings that it can't do without."""

    usual_settings: ClassVar[Mapping[str, Any]] = {}
    """Further settings, which most operators make."""

    required: ClassVar[tuple[str, ...]]
    """The fields that a win must have, besides its signature."""

    more_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that its requests may have besides those of `fields`."""

    amount_field: ClassVar[str] = "amount"
    amount_is_number: ClassVar[bool] = False
    decimals_max: ClassVar[int | None] = None
    """The most decimals that its amounts have, or None where the currency alone decides."""

    currency_field: ClassVar[str | None] = None
    """The field that names the currency, or None where the session, the player or a setting does."""

    tx_field: ClassVar[str]
    free_text_field: ClassVar[str]
    """A field that may hold any text."""

    player_field: ClassVar[str | None] = None
    """The field that names the player, or None where the session does."""

    number_ids: ClassVar[tuple[str, ...]] = ()
    """The fields whose ids may come as whole numbers."""

    signature_field: ClassVar[str | None] = None
    """The field with the signature, where it is in the body."""

    silent_about: ClassVar[frozenset[str]] = frozenset()
    """The fields of the fingerprint that its requests don't have."""

    codes: Mapping[str, Hashable]
    """The code of each error, as `code_of` returns it, by the name of the result."""

    paid_codes: ClassVar[frozenset[Hashable]]
    """The codes that say 'paid', now or by an earlier attempt."""

    receipt_fields: ClassVar[tuple[str, str]]
    """The fields of a reply with our transfer's id and the balance."""

    paid_mark: ClassVar[bytes]
    """Bytes in each reply to a new win that is paid, and in no other: cheaper to find than a reply is to read."""

    replay_mark: ClassVar[bytes | None] = None
    """The same for a win that was paid before, or None where its reply is the original one."""

    unknown_player: ClassVar[str] = "unknown_player"
    """The result of a win of nobody."""

    sends_bulks: ClassVar[bool] = False
    """Whether it sends several wins in one request, too."""

    retries: ClassVar[Retries]

    def __init__(self, keys: Sequence[bytes] = (KEY, PREVIOUS_KEY), **options: Any) -> None:
        """Take the secrets, of which the first signs, and settings beside those of `account`."""
        self.keys = tuple(keys)
        self.options: Mapping[str, Any] = {**self.account, **options}

    @property
    def key(self) -> bytes:
        """The secret that signs."""
        return self.keys[0]

    def at(self, integration: str) -> Self:
        """Return how it speaks to another of its integrations, which has a secret of its own."""
        other = copy(self)
        other.keys = (f"the-secret-of-{integration}".encode(),)
        return other

    def speaking_to(self, provider: Provider[Any, Any]) -> Self:
        """Return how it speaks to an integration of the gateway's, by that one's settings."""
        own = provider.settings.model_dump(exclude=set(IntegrationSettings.model_fields))
        return type(self)([provider.secrets.signing], **own)

    @property
    def settings(self) -> dict[str, Any]:
        """The table `[integrations.NAME]`."""
        return {"provider": self.name, "secrets": [key.decode() for key in self.keys], **self.options}

    @property
    def names_sessions_only(self) -> bool:
        """Whether its wins name no player but a session, which must have been opened before."""
        return self.player_field is None

    def optional(self, facts: Facts) -> list[str]:
        """Return the fields that no win depends on."""
        return [name for name in (*self.fields(facts), *self.more_fields) if name not in self.required]

    @property
    def second_brand(self) -> str:
        """The name of another integration of the same provider."""
        return f"{self.name}-second-brand"

    @property
    def hasty(self) -> str:
        """The name of an integration that waits for its reply only a moment."""
        return f"{self.name}-hasty"

    @abstractmethod
    def fields(self, facts: Facts) -> Fields:
        """Return the body's fields, unsigned."""

    @abstractmethod
    def signed(self, fields: Fields, key: bytes | None = None, *, facts: Facts) -> Callback:
        """Return the request of these fields, signed over whatever they are."""

    @abstractmethod
    def raw(self, body: bytes, *, facts: Facts) -> Callback:
        """Return a request of this body, signed where a signature covers the body."""

    @abstractmethod
    def forged(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        """Return requests whose signature is wrong, and how."""

    @abstractmethod
    def altered(self, facts: Facts, other: Facts) -> Iterable[Altered]:
        """Return signed requests with the id of `facts`, each with one other thing in it.

        `other` names another player.
        """

    @abstractmethod
    def redelivered(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        """Return other requests for the same win, and what differs in each."""

    @abstractmethod
    def without_bet(self, facts: Facts) -> Callback:
        """Return a win that no bet came before."""

    @abstractmethod
    def recorded(self, facts: Facts) -> dict[str, Any]:
        """Return what the ledger must hold of the win, besides who won how much."""

    @abstractmethod
    def code_of(self, response: HttpResponse, reply: Fields) -> Hashable:
        """Return the code of a reply, which its fields and perhaps its status make up."""

    @abstractmethod
    def read_paid(self, response: HttpResponse, facts: Facts, *, replay: bool) -> Paid:
        """Return what a success says, once it is right in every detail. Raises ReplyMismatchError."""

    @abstractmethod
    def assert_error(self, response: HttpResponse, what: str, *, tx: str | None) -> None:
        """Raise ReplyMismatchError unless the reply is the error that the provider's pages want for `what`.

        `what` is a result's name; `tx` is the transaction id, where it could be read from the request.
        """

    def read(self, response: HttpResponse) -> Reading:
        """Return what the provider takes a reply to mean. Raises ReplyMismatchError for one of no meaning to it."""
        try:
            reply = self.fields_of(response)
            code = self.code_of(response, reply)
            if code in self.paid_codes:
                transfer_id, balance = (reply[name] for name in self.receipt_fields)
                return Reading(ReplyMeaning.PAID, transfer_id, balance)
        except (KeyError, TypeError, ValueError) as error:
            raise ReplyMismatchError(f"{self.name} can't read it: {error!r}") from error
        if code in {self.codes["unavailable"], self.codes["unpostable"]}:
            return Reading(ReplyMeaning.ASK_AGAIN)
        if code in self.codes.values():
            return Reading(ReplyMeaning.REFUSED)
        raise ReplyMismatchError(f"{self.name} has no code {code!r}")

    def fields_of(self, response: HttpResponse) -> dict[str, Any]:
        """Return the fields of a reply, numbers as they are written. Raises ReplyMismatchError."""
        return json_fields(response.content)

    def status_of(self, what: str) -> int:  # noqa: ARG002
        """Return the HTTP status of the error for `what`, a result's name."""
        return 200

    def exact_fields(self, response: HttpResponse) -> dict[str, Any]:
        """Return the fields of a reply that is JSON by its header, too, and holds no secret."""
        expect(response.headers["content-type"], "application/json")
        for key in self.keys:
            expect(key in response.content, wanted=False)
        return self.fields_of(response)

    def credit(self, facts: Facts, key: bytes | None = None) -> Callback:
        """Return the signed request."""
        return self.signed(self.fields(facts), key, facts=facts)

    def bulk(self, wins: Sequence[Callback]) -> Callback:
        """Return one request for several wins, where `sends_bulks`."""
        raise TypeError(f"{self.name} sends {len(wins)} wins one by one")

    def with_amount(self, facts: Facts, written: str) -> Callback:
        """Return a signed request whose amount is written so, as a text or a number: as it would."""
        value = msgspec.Raw(written.encode()) if self.amount_is_number else written
        return self.signed({**self.fields(facts), self.amount_field: value}, facts=facts)

    def resigned(self, callback: Callback, facts: Facts) -> Callback:
        """Return the request that the dialect makes of another's content."""
        if self.signature_field is None:
            return self.raw(callback.body, facts=facts)
        fields = msgspec.json.decode(callback.body, type=dict[str, msgspec.Raw])
        del fields[self.signature_field]
        return self.signed(fields, facts=facts)

    def __repr__(self) -> str:
        return self.name


class Written(str):
    """A JSON number, as it was written."""

    __slots__ = ()


def expect(found: object, wanted: object) -> None:
    """Raise ReplyMismatchError unless both are equal."""
    if found != wanted:
        raise ReplyMismatchError(f"{found!r} instead of {wanted!r}")


def expect_numbers(*found: object) -> None:
    """Raise ReplyMismatchError unless all came as JSON numbers."""
    expect([type(value) for value in found], [Written] * len(found))


def json_fields(body: bytes) -> dict[str, Any]:
    """Return a JSON object's fields, numbers as they are written. Raises ReplyMismatchError."""
    try:
        reply = json.loads(body, parse_float=Written, parse_int=Written)
    except ValueError as error:
        raise ReplyMismatchError(f"{error}: {body!r:.200}") from None
    if not isinstance(reply, dict):
        raise ReplyMismatchError(f"not an object: {body!r:.200}")
    return reply


def take_message(reply: dict[str, Any], name: str) -> dict[str, Any]:
    """Take the sentence for people out of an error. Raises ReplyMismatchError unless it is one."""
    message = reply.pop(name, None)
    if type(message) is not str or not 0 < len(message) <= 256 or "Traceback" in message:
        raise ReplyMismatchError(f"no sentence: {message!r:.300}")
    return reply


def body_of(fields: object) -> bytes:
    """Return JSON; a number that must stand as it is written comes as msgspec.Raw."""
    return msgspec.json.encode(fields)


def spoken(value: object) -> str:
    """Return a text or a number as it stands on the wire, and nothing for any other value."""
    written = body_of(value)
    if written.startswith(b'"'):
        return str(json.loads(written))
    return written.decode() if written[:1] in b"-0123456789" else ""


def readable(body: bytes, name: str) -> str | None:
    """Return a text field of a JSON object, where it can be read and is no longer than a text may be."""
    try:
        text = json.loads(body.decode(), parse_constant=_refuse, parse_int=str, parse_float=str).get(name)
    except (ValueError, AttributeError, RecursionError):
        return None
    return text if isinstance(text, str) and len(text) <= 1_000 else None


def _refuse(constant: str) -> None:
    raise ValueError(constant)
