"""How a provider speaks, written a second time: from its own pages, not from what we made of them."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Final, NamedTuple, Self
from uuid import uuid4

import httpx
import msgspec

from gateway.providers.base import Callback

KEY: Final = b"the-secret-in-force"
PREVIOUS_KEY: Final = b"the-secret-before"
FOREIGN_KEY: Final = b"somebody-elses-secret"
SECRETS: Final = (KEY.decode(), PREVIOUS_KEY.decode())

IN_DOLLARS: Final = "-in-dollars"
NEXT: Final = "-next"
"""What a player's session is followed by to name their session in dollars, and their next one in euro."""

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """One win, as the test wants it told. `delivery` counts the attempts to tell it."""

    player_id: str
    session_id: str
    provider_tx_id: str = field(default_factory=lambda: str(uuid4()))
    amount: str = "10.50"
    currency: str = "EUR"
    round_id: str = "round-1"
    delivery: int = 1

    def but(self, **changes: Any) -> "Facts":
        """Return the same win with something else about it."""
        return replace(self, **changes)

    def another(self, **changes: Any) -> "Facts":
        """Return another win of the same player."""
        return replace(self, provider_tx_id=str(uuid4()), **changes)


class Altered(NamedTuple):
    """A repeat of a known id that differs in one field of the fingerprint, and what it offers there."""

    field: str
    offered: object
    callback: Callback


@dataclass(frozen=True, slots=True)
class Paid:
    """What a reply said about a win that is paid, amounts as texts."""

    transfer_id: str
    balance: str
    real_amount: str | None = None
    bonus_amount: str | None = None


class Dialect(ABC):
    """One provider, seen from its own side."""

    name: ClassVar[str]
    path: ClassVar[str]
    required: ClassVar[tuple[str, ...]]
    """The fields that must be there; those of the signature are apart."""

    more_fields: ClassVar[tuple[str, ...]] = ()
    """Fields that its requests may have besides those of `fields`."""

    amount_field: ClassVar[str] = "amount"
    amount_is_number: ClassVar[bool] = False
    tx_field: ClassVar[str]
    free_text_field: ClassVar[str]
    """A field that any text may stand in."""

    player_field: ClassVar[str | None] = None
    """The field that names the player, where there is one."""

    number_ids: ClassVar[tuple[str, ...]] = ()
    """The fields of ids that may come as whole numbers."""

    unknown_player: ClassVar[str] = "unknown_player"
    """The error that a win of nobody gets."""

    signature_field: ClassVar[str | None] = None
    """The field that the signature is in, where it is in the body."""

    silent_about: ClassVar[frozenset[str]] = frozenset()
    """What its requests can't say of a win, of the fingerprint's fields."""

    options: ClassVar[Mapping[str, Any]] = {}
    """The settings that are its own."""

    secrets: tuple[str, ...] = SECRETS
    """Those of the integration that it speaks to; the first signs."""

    @property
    def key(self) -> bytes:
        """The secret that signs."""
        return self.secrets[0].encode()

    def at(self, integration: str) -> Self:
        """Return how it speaks to another of its integrations, which has a secret of its own."""
        other = copy(self)
        other.secrets = (f"the-secret-of-{integration}",)
        return other

    @property
    def settings(self) -> dict[str, Any]:
        """The table `[integrations.NAME]`."""
        return {"provider": self.name, "secrets": list(self.secrets), **self.options}

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
        """Return other ways to tell the same win again, and what is another in each."""

    @abstractmethod
    def without_bet(self, facts: Facts) -> Callback:
        """Return a win that no bet came before."""

    @abstractmethod
    def recorded(self, facts: Facts) -> dict[str, Any]:
        """Return what the books must say of the win, besides who won how much."""

    @abstractmethod
    def read_paid(self, response: httpx.Response, facts: Facts, *, replay: bool) -> Paid:
        """Assert that the reply is a success in every detail, and return what it says."""

    @abstractmethod
    def assert_error(self, response: httpx.Response, what: str, *, tx: str | None) -> None:
        """Assert that the reply is the error that the provider's pages want for `what`, a result's name.

        `tx` is the transaction id, where it could be read from the request.
        """

    def credit(self, facts: Facts, key: bytes | None = None) -> Callback:
        """Return the signed request."""
        return self.signed(self.fields(facts), key, facts=facts)

    def with_amount(self, facts: Facts, written: str) -> Callback:
        """Return a signed request whose amount is written so, as a text or a number: as it would."""
        value = msgspec.Raw(written.encode()) if self.amount_is_number else written
        return self.signed({**self.fields(facts), self.amount_field: value}, facts=facts)

    def resigned(self, callback: Callback, facts: Facts) -> Callback:
        """Return what a request would be if the test had signed its content."""
        if self.signature_field is None:
            return self.raw(callback.body, facts=facts)
        fields = msgspec.json.decode(callback.body, type=dict[str, msgspec.Raw])
        del fields[self.signature_field]
        return self.signed(fields, facts=facts)

    def __repr__(self) -> str:
        return self.name


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


def content(response: httpx.Response) -> dict[str, Any]:
    """Return a JSON reply's fields, numbers as they are written."""
    assert response.headers["content-type"] == "application/json"
    for secret in (KEY, PREVIOUS_KEY):
        assert secret not in response.content
    said = json.loads(response.content, parse_float=Written, parse_int=Written)
    assert isinstance(said, dict)
    return said


class Written(str):
    """A JSON number, as it was written."""

    __slots__ = ()


def take_message(said: dict[str, Any], name: str) -> dict[str, Any]:
    """Take the sentence for people out of an error, and assert that it is one."""
    message = said.pop(name)
    assert isinstance(message, str)
    assert 0 < len(message) <= 256
    assert "Traceback" not in message
    return said


def _refuse(constant: str) -> None:
    raise ValueError(constant)
