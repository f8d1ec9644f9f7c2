"""The interface of a provider: four verbs, a table of codes, and a sample request.

A callback goes through `authenticate`, `parse` and `normalize`; the ledger's reply goes through `render`.
`split` and `join` wrap these for a provider that sends several credits in one request.
Helpers that several providers need stand at the end of this file.
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
from shared.outcome import Balance, Outcome, OutcomeCode
from shared.queries import FindPlayer, PlayerRef, Query
from shared.settings_types import StringList

TEXT_CHARACTERS_MAX: Final = 1_000
EXPLANATION_CHARACTERS_MAX: Final = 256

Text = Annotated[str, msgspec.Meta(max_length=TEXT_CHARACTERS_MAX, pattern=r"\A[^\x00]*\Z")]
"""Free text in a required field. NUL is refused, because PostgreSQL can't store it."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_CHARACTERS_MAX, pattern=ID_PATTERN)]
"""An identifier, as `shared.ids` defines it."""

CurrencyText = Annotated[str, msgspec.Meta(max_length=CURRENCY_CHARACTERS_MAX)]
"""The text of a currency field; `Provider.amount` checks that it is a currency code."""

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
"""The text of a provider's message field where the outcome has no detail of its own."""


class Callback(NamedTuple):
    """One HTTP request, or one item of a bulk request, as it was received."""

    path: str
    """The path after `/NAME/`, such as "credit"."""

    body: bytes
    headers: Mapping[str, str] = {}
    """Values by lower-case name."""

    query: Mapping[str, str] = {}

    def header(self, name: str) -> str:
        """Return a header's value without surrounding blanks, or "" if it is missing."""
        return self.headers.get(name, "").strip(" \t")


class Reply(NamedTuple):
    """One HTTP response."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class CallbackRejected(CreditsError):  # noqa: N818  (named after the request's end)
    """The callback can't become a credit; `outcome` is rendered as the reply."""

    def __init__(self, result: OutcomeCode, detail: str = "") -> None:
        """Take the outcome's code and, for people, a sentence that contains no secret."""
        super().__init__(detail or result.value)
        self.outcome: Final = Outcome(result, detail=detail)


class IntegrationSettings(BaseModel):
    """`[integrations.NAME]`: the settings that all providers share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    """The provider's protocol: a key of `PROVIDERS`."""

    cell: str = MAIN
    """The cell whose ledger pays its wins; never changed once it has any."""

    secrets: Annotated[StringList, Field(min_length=1, repr=False)]
    """Literals, `env:NAME` or `file:PATH`. Any may verify, the first signs: to rotate, add the new one, then
    remove the old one."""

    reply_within_seconds: float = Field(default=2.5, gt=0, le=60)
    """The provider's window: what is not known by then is answered 'ask again'."""

    allowed_addresses: Annotated[Networks, Field(min_length=1)] | None = None
    """The networks that its callbacks may come from; any, if left out. All others are refused unread."""

    free_spin_wins: Literal["bonus", "real"] = "bonus"
    """DECISION: the wallet that wins of free spins and rewards go to."""


class Win(NamedTuple):
    """The data of an invented win, for a sample request."""

    provider_tx_id: str
    """A UUID, which every provider's format allows."""

    player_id: str
    session_id: str
    amount: str = "10.50"
    currency: str = "EUR"
    round_id: str = "round-1"


Message = TypeVar("Message")

SettingsType = TypeVar("SettingsType", bound=IntegrationSettings)


class Provider(ABC, Generic[SettingsType, Message]):
    """One integration: a provider's protocol with the settings and secrets of one account."""

    paths: ClassVar[tuple[str, ...]]
    """The callbacks that it sends, as values of `Callback.path`."""

    headers: ClassVar[frozenset[str]] = frozenset()
    """The headers that it reads, in lower case; a request with two values for one of them is refused."""

    reads_query: ClassVar = False
    """Whether it reads the query string; if not, the query is ignored."""

    retry_reply_varies: ClassVar = True
    """Whether the 'send it again' reply depends on the request, as by an id in it. If not, it is rendered once."""

    settings_type: ClassVar[type[IntegrationSettings]]
    """The model of `[integrations.NAME]` for this provider; the same type as SettingsType."""

    def __init__(self, name: str, settings: SettingsType, secrets: SigningKeys, currencies: Currencies) -> None:
        """Take the integration's name, settings and secrets, as `gateway.providers.registry.build` has read them."""
        self.name: Final = name
        self.settings: Final = settings
        self.secrets: Final = secrets
        self.currencies: Final = currencies

    def startup_warning(self) -> str | None:
        """Return a warning for the operator that is logged at each start, or None."""
        return None

    def is_readable_from(self, other: Self) -> bool:  # noqa: ARG002
        """Return whether both may have one secret: what is signed names the account, and the accounts differ."""
        return False

    @abstractmethod
    def authenticate(self, callback: Callback) -> None:
        """Verify the signature over the bytes as received, without a query to the ledger. Raises CallbackRejected."""

    @abstractmethod
    def parse(self, callback: Callback) -> Message:
        """Decode the body into the provider's own schema, numbers as written. Raises CallbackRejected."""

    def lookup(self, message: Message) -> Query | None:  # noqa: ARG002
        """Return the query whose reply `normalize` needs, such as for the player's currency, or None.

        Raises CallbackRejected.
        """
        return None

    @abstractmethod
    def normalize(self, message: Message, player: PlayerRef | None) -> Credit | FindPlayer:
        """Turn a message into a credit or a query for the ledger. Raises CallbackRejected.

        `player` is the player that `lookup` found; None if there was no query or it found nothing.
        """

    def render(self, callback: Callback, answer: Outcome | Balance) -> Reply:
        """Return the provider's reply to the ledger's answer or to a rejection, signed where the provider needs it."""
        if isinstance(answer, Outcome):
            return self.render_outcome(callback, answer)
        return self.render_balance(callback, answer)

    @abstractmethod
    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Return the reply to a credit, or to a request that was rejected."""

    def render_balance(self, callback: Callback, balance: Balance) -> Reply:  # noqa: ARG002
        """Return the reply with a balance, for a provider whose `normalize` queries one."""
        raise TypeError(f"{type(self).__name__} queries no balance")

    @abstractmethod
    def sample_request(self, win: Win) -> Callback:
        """Return a signed request for `win`, as the provider would send it."""

    def holds_few(self, callback: Callback) -> bool:  # noqa: ARG002
        """Return whether a short request holds so few credits that rejecting all of them costs about as much as one."""
        return True

    def split(self, callback: Callback) -> list[Callback]:
        """Return the credits of one request, each of which is answered on its own. Raises CallbackRejected."""
        return [callback]

    def join(self, callback: Callback, replies: Sequence[Reply]) -> Reply:  # noqa: ARG002
        """Combine the replies to the credits of `split` into one reply."""
        return replies[0]

    def require_currency(self, setting: str, code: str) -> None:
        """Raise SettingsError if `code`, the value of a setting of this integration, is no currency."""
        try:
            self.currencies.exponent(code)
        except MoneyError as error:
            raise SettingsError(f"[integrations.{self.name}] {setting}: {error} {code!r}") from None

    def body_bytes_max(self, path: str, default_bytes: int) -> int:  # noqa: ARG002
        """Return the largest body that a callback to `path` may have."""
        return default_bytes

    def wallet_for(self, kind: Kind) -> Wallet:
        """Return the wallet that a win of this kind is paid into."""
        is_bonus = kind in {Kind.FREE_SPIN, Kind.REWARD} and self.settings.free_spin_wins == "bonus"
        return Wallet.BONUS if is_bonus else Wallet.REAL

    def amount(self, text: str, currency: str) -> int:
        """Return the minor units of an amount as the provider wrote it. Raises CallbackRejected."""
        try:
            self.currencies.exponent(currency)
        except MoneyError as error:
            raise CallbackRejected(OutcomeCode.WRONG_CURRENCY, str(error)) from None
        try:
            return self.currencies.to_minor(text, currency)
        except MoneyError as error:
            raise CallbackRejected(OutcomeCode.MALFORMED, f"amount: {error}") from None

    def number(self, minor: int, currency: str) -> msgspec.Raw:
        """Return minor units as a JSON number: a plain decimal without trailing zeros."""
        return msgspec.Raw(self.currencies.to_text(minor, currency).encode())


class LastParsed(Generic[Message]):
    """Caches the result for the last callback, because `parse` follows `authenticate` and needs the same decoding."""

    def __init__(self, read: Callable[[Callback], Message]) -> None:
        """Take the function that decodes a callback."""
        self._read: Final = read
        self._last: tuple[Callback, Message] | None = None

    def of(self, callback: Callback) -> Message:
        """Return the decoded callback; the same result if it was the last one. Raises what the function raises."""
        last = self._last
        if last is None or last[0] is not callback:
            last = self._last = callback, self._read(callback)
        return last[1]


def explain(outcome: Outcome) -> str:
    """Return one sentence for a provider's message field, free of secrets."""
    if outcome.mismatched_fields:
        return f"{SENTENCES[outcome.code]}: {', '.join(outcome.mismatched_fields)}"
    return (outcome.detail or SENTENCES[outcome.code])[:EXPLANATION_CHARACTERS_MAX]


def json_reply(value: object, status: int = 200) -> Reply:
    """Return a JSON response."""
    return Reply(_encoder.encode(value), status)


_encoder = msgspec.json.Encoder()
