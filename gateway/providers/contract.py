"""What every provider's file has to offer: four verbs, a table of codes, and a sample of its request.

A callback goes through `authenticate`, `parse`, `normalize`; the ledger's answer goes through `render`.
`split` and `join` stand around them for a provider that sends several credits in one request.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Generic, Literal, NamedTuple, TypeVar

import msgspec
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gateway.secrets import Secrets
from shared.credit import Credit, Kind, Wallet
from shared.errors import CreditsError, MoneyError
from shared.money import Currencies
from shared.outcome import Holder, Outcome, Result
from shared.wire import FindPlayer, Lookup

Text = Annotated[str, msgspec.Meta(max_length=1_000, pattern=r"\A[^\x00]*\Z")]
"""Free text. No NUL: PostgreSQL can't store it."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]
"""An identifier: any printable text, compared to the letter."""


class Callback(NamedTuple):
    """One HTTP request, or one item of a bulk request, as it came."""

    path: str
    """What follows `/NAME/`, such as "credit"."""

    body: bytes
    headers: Mapping[str, str] = {}
    """Looked up by lower-case name."""

    query: Mapping[str, str] = {}


class Reply(NamedTuple):
    """One HTTP response."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Refused(CreditsError):  # noqa: N818  (it says what became of the request)
    """The callback can't become a credit; `outcome` is what the provider is told."""

    def __init__(self, result: Result, detail: str = "") -> None:
        """Take a result and, for people, a sentence without any secret in it."""
        super().__init__(detail or result.value)
        self.outcome: Final = Outcome(result, detail=detail)


def _as_list(value: object) -> object:
    """Let an environment variable hold one secret, or a JSON list of several."""
    if not isinstance(value, str):
        return value
    return msgspec.json.decode(value) if value.startswith("[") else [value]


class IntegrationSettings(BaseModel):
    """`[integrations.NAME]`: what every provider's settings have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    secrets: Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
    """Literal, `env:NAME` or `file:PATH`. Any may verify; the first signs."""

    reply_within_seconds: float = Field(default=2.5, gt=0, le=60)
    free_spin_wins: Literal["bonus", "real"] = "bonus"
    """DECISION: the wallet that wins of free spins and rewards go to."""


class Win(NamedTuple):
    """The facts of a made-up win, for a sample request."""

    provider_tx_id: str
    """A UUID, which every provider's format admits."""

    player_id: str
    session_id: str
    amount: str = "10.50"
    currency: str = "EUR"
    round_id: str = "round-1"


Message = TypeVar("Message")


SettingsType = TypeVar("SettingsType", bound=IntegrationSettings)


class Provider(ABC, Generic[SettingsType, Message]):
    """One integration: a provider's protocol with one account's settings and secrets."""

    paths: ClassVar[tuple[str, ...]]
    """The callbacks it sends, as `Callback.path` names them."""

    content_types: ClassVar[frozenset[str]] = frozenset({"application/json"})
    """The bodies it may send. A request that names no type is read as JSON."""

    settings_type: ClassVar[type[IntegrationSettings]]
    """What `[integrations.NAME]` holds for this provider; the same type as SettingsType."""

    def __init__(self, name: str, settings: SettingsType, secrets: Secrets, currencies: Currencies) -> None:
        """Take the integration's name, settings and secrets, as `gateway.providers.build` has read them."""
        self.name: Final = name
        self.settings: Final = settings
        self.secrets: Final = secrets
        self.currencies: Final = currencies

    @abstractmethod
    def authenticate(self, callback: Callback) -> None:
        """Verify the signature over the bytes as they came. Raises Refused; looks nothing up."""

    @abstractmethod
    def parse(self, callback: Callback) -> Message:
        """Read the body into the provider's own schema, numbers as written. Raises Refused."""

    def whose(self, message: Message) -> Lookup | None:  # noqa: ARG002
        """Return what to ask the ledger before `normalize` can know the player and the currency."""
        return None

    @abstractmethod
    def normalize(self, message: Message, holder: Holder | None) -> Credit | FindPlayer:
        """Turn a message into a question to the ledger. `holder` answers `whose`. Raises Refused."""

    @abstractmethod
    def render(self, callback: Callback, answer: Outcome | Holder) -> Reply:
        """Say the ledger's answer, or a refusal, in the provider's words, signed where it wants that."""

    @abstractmethod
    def compose(self, win: Win) -> Callback:
        """Return the provider's signed request for `win`, as the provider would send it."""

    def split(self, callback: Callback) -> list[Callback]:
        """Return the credits of one request, each to be answered on its own. Raises Refused."""
        return [callback]

    def join(self, callback: Callback, replies: Sequence[Reply]) -> Reply:  # noqa: ARG002
        """Make one reply of the replies to what `split` returned."""
        return replies[0]

    def body_bytes_max(self, path: str, default_bytes: int) -> int:  # noqa: ARG002
        """Return the largest body that a callback to `path` may have."""
        return default_bytes

    def wallet_for(self, kind: Kind) -> Wallet:
        """Return the wallet that a win of this kind goes to."""
        free = kind in {Kind.FREE_SPIN, Kind.REWARD} and self.settings.free_spin_wins == "bonus"
        return Wallet.BONUS if free else Wallet.REAL

    def amount(self, text: str, currency: str) -> int:
        """Return minor units of an amount as the provider wrote it. Raises Refused."""
        try:
            self.currencies.exponent(currency)
        except MoneyError as error:
            raise Refused(Result.WRONG_CURRENCY, str(error)) from None
        try:
            return self.currencies.to_minor(text, currency)
        except MoneyError as error:
            raise Refused(Result.MALFORMED, f"amount: {error}") from None


def decode(decoder: msgspec.json.Decoder[Message], body: bytes) -> Message:
    """Read JSON strictly. Raises Refused with what is wrong and where."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(Result.MALFORMED, str(error)) from None
    except RecursionError:
        raise Refused(Result.MALFORMED, "nested too deeply") from None


def lexeme(raw: msgspec.Raw, field: str) -> str:
    """Return a JSON number as it was written, or the text of a JSON string. Raises Refused for others."""
    written = bytes(raw)
    if written[:1] == b'"':
        return decode(_text, written)
    return number_lexeme(raw, field)


def number_lexeme(raw: msgspec.Raw, field: str) -> str:
    """Return a JSON number as it was written: 5, 5.0 and 5.00 are three texts. Raises Refused for others."""
    written = bytes(raw)
    if written[:1] not in _NUMBER_STARTS:
        raise Refused(Result.MALFORMED, f"{field}: not a number")
    return written.decode("ascii")


_text = msgspec.json.Decoder(Text)
_NUMBER_STARTS: Final = frozenset(b"%c" % c for c in b"-0123456789")
