"""What every provider's file has to offer: four verbs, a table of codes, and a sample of its request.

A callback goes through `authenticate`, `parse`, `normalize`; the ledger's answer goes through `render`.
`split` and `join` stand around them for a provider that sends several credits in one request.
What several providers would otherwise each write for themselves stands below, once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Final, Generic, Literal, NamedTuple, Self, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from gateway.providers.signing import SigningKeys
from shared.cell_places import MAIN
from shared.currency_code import CURRENCY_CHARACTERS_MAX
from shared.errors import CreditsError, MoneyError, SettingsError
from shared.ids import ID_CHARACTERS_MAX, ID_PATTERN
from shared.money import Currencies
from shared.networks import Networks
from shared.operations import Credit, Kind, Wallet
from shared.outcome import Holder, Outcome, OutcomeCode
from shared.settings_types import StringList
from shared.wire import FindPlayer, Lookup

TEXT_CHARACTERS_MAX: Final = 1_000
EXPLANATION_CHARACTERS_MAX: Final = 256

Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS_MAX, pattern=r"\A[^\x00]*\Z")]
"""Free text that is needed. No NUL: PostgreSQL can't store it."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_CHARACTERS_MAX, pattern=ID_PATTERN)]
"""An identifier, as `shared.ids` defines it."""

CurrencyText = Annotated[str, msgspec.Meta(max_length=CURRENCY_CHARACTERS_MAX)]
"""What stands where a currency code should; whether it is one is for `Provider.amount` to say."""

SENTENCES: Final[Mapping[OutcomeCode, str]] = {
    OutcomeCode.POSTED: "",
    OutcomeCode.REPLAYED: "already processed: this is the original result",
    OutcomeCode.CONFLICT: "this id was processed with other content",
    OutcomeCode.UNKNOWN_PLAYER: "cannot find the player",
    OutcomeCode.UNKNOWN_SESSION: "cannot find the session",
    OutcomeCode.SESSION_CLOSED: "the session is closed",
    OutcomeCode.WRONG_CURRENCY: "the player has no wallet in this currency",
    OutcomeCode.BALANCE_LIMIT: "the balance would exceed its limit",
    OutcomeCode.BAD_SIGNATURE: "the signature does not match",
    OutcomeCode.UNKNOWN_CALLER: "the caller is not the configured one",
    OutcomeCode.MALFORMED: "the request is malformed",
    OutcomeCode.INVALID_TX_ID: "the transaction id is not valid",
    OutcomeCode.UNAVAILABLE: "no answer in time, send it again",
    OutcomeCode.UNPOSTABLE: "not processed, send it again",
}
"""What a provider's message field says when nobody said anything more exact."""


class Callback(NamedTuple):
    """One HTTP request, or one item of a bulk request, as it came."""

    path: str
    """What follows `/NAME/`, such as "credit"."""

    body: bytes
    headers: Mapping[str, str] = {}
    """Looked up by lower-case name."""

    query: Mapping[str, str] = {}

    def header(self, name: str) -> str:
        """Return a header's value without blanks around it, or "" where there is none."""
        return self.headers.get(name, "").strip(" \t")


class Reply(NamedTuple):
    """One HTTP response."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class CallbackRejected(CreditsError):  # noqa: N818  (it says what became of the request)
    """The callback can't become a credit; `outcome` is what the provider is told."""

    def __init__(self, result: OutcomeCode, detail: str = "") -> None:
        """Take a result and, for people, a sentence without any secret in it."""
        super().__init__(detail or result.value)
        self.outcome: Final = Outcome(result, detail=detail)


class IntegrationSettings(BaseModel):
    """`[integrations.NAME]`: what every provider's settings have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    cell: str = MAIN
    """The cell whose ledger pays its wins."""

    secrets: Annotated[StringList, Field(min_length=1, repr=False)]
    """Literal, `env:NAME` or `file:PATH`. Any may verify; the first signs."""

    reply_within_seconds: float = Field(default=2.5, gt=0, le=60)
    allowed_addresses: Annotated[Networks, Field(min_length=1)] | None = None
    """The networks that its callbacks may come from; any, if left out."""

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

    headers: ClassVar[frozenset[str]] = frozenset()
    """The headers that it reads, in lower case: none may come with two values."""

    reads_query: ClassVar = False
    """Whether it reads the query, which is passed over if not."""

    retry_reply_varies: ClassVar = True
    """Whether 'ask again' depends on the request, such as by an id or a number of items. Said once if not."""

    settings_type: ClassVar[type[IntegrationSettings]]
    """What `[integrations.NAME]` holds for this provider; the same type as SettingsType."""

    def __init__(self, name: str, settings: SettingsType, secrets: SigningKeys, currencies: Currencies) -> None:
        """Take the integration's name, settings and secrets, as `gateway.providers.build` has read them."""
        self.name: Final = name
        self.settings: Final = settings
        self.secrets: Final = secrets
        self.currencies: Final = currencies

    def startup_warning(self) -> str | None:
        """Return what the operator should be told at each start."""
        return None

    def is_readable_from(self, other: Self) -> bool:  # noqa: ARG002
        """Tell whether what is signed names another account than `other`'s, should they share a secret."""
        return False

    @abstractmethod
    def authenticate(self, callback: Callback) -> None:
        """Verify the signature over the bytes as they came. Raises Refused; looks nothing up."""

    @abstractmethod
    def parse(self, callback: Callback) -> Message:
        """Read the body into the provider's own schema, numbers as written. Raises Refused."""

    def lookup(self, message: Message) -> Lookup | None:  # noqa: ARG002
        """Return what `normalize` has to ask the ledger first: who the player is. Raises Refused."""
        return None

    @abstractmethod
    def normalize(self, message: Message, holder: Holder | None) -> Credit | FindPlayer:
        """Turn a message into a question to the ledger. Raises Refused.

        `holder` answers `lookup`; it is None when nothing was asked, or nobody was found.
        """

    def render(self, callback: Callback, answer: Outcome | Holder) -> Reply:
        """Say the ledger's answer, or a refusal, in the provider's words, signed where it wants that."""
        if isinstance(answer, Outcome):
            return self.render_outcome(callback, answer)
        return self.render_holder(callback, answer)

    @abstractmethod
    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Say what became of a credit, or why a request was refused."""

    def render_holder(self, callback: Callback, holder: Holder) -> Reply:  # noqa: ARG002
        """Say a balance, for a provider whose `normalize` asks for one."""
        raise TypeError(f"{type(self).__name__} asks for no balance")

    @abstractmethod
    def sample_request(self, win: Win) -> Callback:
        """Return the provider's signed request for `win`, as the provider would send it."""

    def holds_few(self, callback: Callback) -> bool:  # noqa: ARG002
        """Tell whether a short request holds so few credits that all are refused in about the time of one."""
        return True

    def split(self, callback: Callback) -> list[Callback]:
        """Return the credits of one request, each to be answered on its own. Raises Refused."""
        return [callback]

    def join(self, callback: Callback, replies: Sequence[Reply]) -> Reply:  # noqa: ARG002
        """Make one reply of the replies to what `split` returned."""
        return replies[0]

    def require_currency(self, setting: str, code: str) -> None:
        """Refuse a setting of this integration that is no currency. Raises SettingsError."""
        try:
            self.currencies.exponent(code)
        except MoneyError as error:
            raise SettingsError(f"[integrations.{self.name}] {setting}: {error} {code!r}") from None

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
            raise CallbackRejected(OutcomeCode.WRONG_CURRENCY, str(error)) from None
        try:
            return self.currencies.to_minor(text, currency)
        except MoneyError as error:
            raise CallbackRejected(OutcomeCode.MALFORMED, f"amount: {error}") from None

    def number(self, minor: int, currency: str) -> msgspec.Raw:
        """Return minor units as a JSON number: a plain decimal, trailing zeros trimmed."""
        return msgspec.Raw(self.currencies.to_text(minor, currency).encode())


class LastRead(Generic[Message]):
    """What is read of a callback, kept for the verb that comes next: `parse` follows `authenticate`."""

    def __init__(self, read: Callable[[Callback], Message]) -> None:
        """Take what reads a callback."""
        self._read: Final = read
        self._known: tuple[Callback, Message] | None = None

    def of(self, callback: Callback) -> Message:
        """Return what was read of the callback, or read it. Raises what `read` raises."""
        known = self._known
        if known is None or known[0] is not callback:
            known = self._known = callback, self._read(callback)
        return known[1]


def explain(outcome: Outcome) -> str:
    """Return one sentence for a provider's message field, free of anything secret."""
    if outcome.mismatched_fields:
        return f"{SENTENCES[outcome.code]}: {', '.join(outcome.mismatched_fields)}"
    return (outcome.detail or SENTENCES[outcome.code])[:EXPLANATION_CHARACTERS_MAX]


def json_reply(value: object, status: int = 200) -> Reply:
    """Return a JSON response."""
    return Reply(_encoder.encode(value), status)


_encoder = msgspec.json.Encoder()
