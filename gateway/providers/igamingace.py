"""igamingace: iGamingAce, the Deposit of its callback service.

Sends    POST /NAME/Deposit, JSON or a form, with `sign`: the upper-case hex HMAC-SHA256 of agentID + userID +
         amount + transactionID + roundID, no separators, the amount with exactly two decimals.
Gets     HTTP 200 {"code", "message", "platformTransactionID", "balance"}; of errors, code and message alone.
         0 success, 1 general, 2 wrong parameters, 3 bad sign, 4 unknown agent, 5 unknown user, 11 duplicate
Sources  https://pragapi.igamingace.com/: api-reference/callback/deposit, integration/start,
         integration/result-codes

Money dedups on `transactionID`. A repeat is code 11, with the original platformTransactionID and the balance
of that time. Other content under a known id is 2, never 11: that would say that the altered amount was paid.

Quirks
- Without separators, player01 + 1.00 and player0 + 11.00 sign alike. So userID must be 4 to 48 alphanumerics,
  and every field is in the fingerprint. transactionID + roundID can be cut elsewhere as well, into an id that
  nobody has paid yet, by whoever gets hold of a signed request: let it in over HTTPS only, and log no bodies.
- The request names no currency: it is the setting `currency`, or else the player's own.
- 12.3 is signed as 12.30, whatever the currency's own decimals. More than two are refused, but for zeros.
- `freeSpinID` marks a free-spin win; null, absent and "" do not.

DECISIONS
- It retries 50 times, after network faults such as HTTP 502. So what it should send again gets HTTP 502 with
  code 1: `unavailable_status = 502`, or 200 to the letter of 'always HTTP 200', where it may give up.
- It waits 10 s, so `reply_within_seconds` is 8.

>>> from gateway.signing import hmac_sha256_hex
>>> message = "Partner01Player0112.30474e1a293c2f4e7ab122c52d68423fcbab9c15f2efdd46278e4a56b303127234"
>>> hmac_sha256_hex(b"1234567890", message.encode()).upper()
'475D834ACC3AB61D7DF4EA42751C6275387BC1787A098D2D0E091698D9BF2043'
>>> signed_amount("12.3"), signed_amount("12"), signed_amount("12.300")
('12.30', '12.00', '12.30')
"""

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from pydantic import Field

from gateway.providers.contract import (
    Callback,
    Id,
    IntegrationSettings,
    Message,
    Provider,
    Refused,
    Reply,
    Text,
    Win,
    decode,
    explain,
    json_reply,
    lexeme,
    noted,
)
from gateway.signing import Secrets, hmac_sha256_hex
from shared.credit import Credit, Kind
from shared.errors import MoneyError, SettingsError
from shared.money import Currencies
from shared.outcome import Holder, Outcome, Result
from shared.settings import CurrencyCode
from shared.wire import FindPlayer


class Code(NamedTuple):
    """A result code, and whether iGamingAce should send the same again."""

    code: int
    send_again: bool = False


CODES: Final[Mapping[Result, Code]] = {
    Result.POSTED: Code(0),
    Result.REPLAYED: Code(11),
    Result.CONFLICT: Code(2),
    Result.UNKNOWN_PLAYER: Code(5),
    Result.UNKNOWN_SESSION: Code(1),
    Result.SESSION_CLOSED: Code(1),
    Result.WRONG_CURRENCY: Code(2),
    Result.BALANCE_LIMIT: Code(1),
    Result.BAD_SIGNATURE: Code(3),
    Result.UNKNOWN_CALLER: Code(4),
    Result.MALFORMED: Code(2),
    Result.INVALID_TX_ID: Code(2),
    Result.UNAVAILABLE: Code(1, send_again=True),
    Result.UNPOSTABLE: Code(1, send_again=True),
}
FORM: Final = "application/x-www-form-urlencoded"
_FORM_FIELDS_MAX: Final = 64
_TWO_DECIMALS: Final = re.compile(r"([0-9]{1,20})(?:\.([0-9]{1,2})0*)?")

UserId = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9]{4,48}\Z")]
GameId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class IGamingAceSettings(IntegrationSettings):
    """`[integrations.NAME]` of an iGamingAce agent."""

    agent_id: str = Field(min_length=1)
    currency: CurrencyCode | None = None
    """The currency of all its amounts; without it, each player's own."""

    unavailable_status: Literal[502, 200] = 502
    """DECISION: the HTTP status of 'send it again'."""

    reply_within_seconds: float = Field(default=8, gt=0, le=60)


class Signed(msgspec.Struct, frozen=True):
    """What the sign covers, and the sign."""

    agent_id: Text = msgspec.field(name="agentID")
    user_id: UserId = msgspec.field(name="userID")
    amount: msgspec.Raw
    transaction_id: Id = msgspec.field(name="transactionID")
    round_id: Id = msgspec.field(name="roundID")
    sign: Text | None = None


class Deposit(msgspec.Struct, frozen=True):
    """The body of /Deposit, without what only the sign is for."""

    user_id: UserId = msgspec.field(name="userID")
    amount: msgspec.Raw
    transaction_id: Id = msgspec.field(name="transactionID")
    round_id: Id = msgspec.field(name="roundID")
    bet_id: Text | None = msgspec.field(name="refTransactionID", default=None)
    game_id: GameId | Text | None = msgspec.field(name="gameID", default=None)
    free_spin_id: Text | None = msgspec.field(name="freeSpinID", default=None)


_signed: Final = msgspec.json.Decoder(Signed)
_deposit: Final = msgspec.json.Decoder(Deposit)


def signed_amount(text: str) -> str:
    """Return an amount as it is signed, with exactly two decimals. Raises Refused."""
    match = _TWO_DECIMALS.fullmatch(text)
    if match is None:
        raise Refused(Result.MALFORMED, "amount: not a plain decimal with at most two decimals")
    return f"{match[1]}.{(match[2] or '').ljust(2, '0')}"


class IGamingAce(Provider[IGamingAceSettings, Deposit]):
    """One iGamingAce agent."""

    paths: ClassVar = ("Deposit",)
    echoes: ClassVar = False
    content_types: ClassVar = frozenset({"application/json", FORM})
    settings_type: ClassVar = IGamingAceSettings

    def __init__(
        self, name: str, settings: IGamingAceSettings, secrets: Secrets, currencies: Currencies
    ) -> None:
        """Check that the currency is one. Raises SettingsError."""
        super().__init__(name, settings, secrets, currencies)
        try:
            if settings.currency is not None:
                currencies.exponent(settings.currency)
        except MoneyError as error:
            raise SettingsError(f"[integrations.{name}] currency: {error}") from None

    def authenticate(self, callback: Callback) -> None:
        """Verify the agent and the sign."""
        signed = _read(_signed, callback)
        if signed.agent_id != self.settings.agent_id:
            raise Refused(Result.UNKNOWN_CALLER, "agentID is not the configured one")
        amount = signed_amount(lexeme(signed.amount, "amount"))
        message = (
            f"{signed.agent_id}{signed.user_id}{amount}{signed.transaction_id}{signed.round_id}".encode()
        )
        if not self.secrets.verify(signed.sign or "", lambda key: hmac_sha256_hex(key, message).upper()):
            raise Refused(Result.BAD_SIGNATURE)

    def parse(self, callback: Callback) -> Deposit:
        """Read the whole body."""
        return _read(_deposit, callback)

    def whose(self, message: Deposit) -> FindPlayer | None:
        """Ask for the player's own currency, unless a setting says it."""
        return None if self.settings.currency else FindPlayer(message.user_id)

    def normalize(self, message: Deposit, holder: Holder | None) -> Credit:
        """Make a credit in the configured currency or the player's."""
        currency = self.settings.currency or (holder.currency if holder else None)
        if currency is None:
            raise Refused(Result.UNKNOWN_PLAYER)
        kind = Kind.FREE_SPIN if message.free_spin_id else Kind.WIN
        return Credit(
            integration=self.name,
            provider_tx_id=message.transaction_id,
            player_id=message.user_id,
            currency=currency,
            amount_minor=self.amount(lexeme(message.amount, "amount"), currency),
            kind=kind,
            wallet=self.wallet_for(kind),
            round_id=message.round_id,
            game_id=None if message.game_id is None else str(message.game_id) or None,
            bet_id=message.bet_id or None,
            details=noted(freeSpinID=message.free_spin_id),
        )

    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Say the transfer and the balance after it, or a code."""
        del callback  # nothing of the request is echoed
        (code, send_again), receipt = CODES[outcome.result], outcome.receipt
        if receipt is None:
            status = self.settings.unavailable_status if send_again else 200
            return json_reply({"code": code, "message": explain(outcome)}, status)
        return json_reply(
            {
                "code": code,
                "message": explain(outcome),
                "platformTransactionID": receipt.transfer_id,
                "balance": self.number(receipt.balance_minor, receipt.currency),
            }
        )

    def compose(self, win: Win) -> Callback:
        """Return a signed /Deposit."""
        agent_id, amount = self.settings.agent_id, signed_amount(win.amount)
        message = f"{agent_id}{win.player_id}{amount}{win.provider_tx_id}{win.round_id}"
        request = {
            "agentID": agent_id,
            "userID": win.player_id,
            "amount": msgspec.Raw(amount.encode()),
            "refTransactionID": None,
            "transactionID": win.provider_tx_id,
            "roundID": win.round_id,
            "gameID": 1566,
            "freeSpinID": None,
            "sign": hmac_sha256_hex(self.secrets.signing, message.encode()).upper(),
        }
        return Callback("Deposit", msgspec.json.encode(request), {"content-type": "application/json"})


def _read(decoder: msgspec.json.Decoder[Message], callback: Callback) -> Message:
    """Read JSON; or a form, whose fields are JSON strings to the schema."""
    if callback.media_type != FORM:
        return decode(decoder, callback.body)
    try:
        fields = parse_qsl(
            callback.body.decode(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_FORM_FIELDS_MAX,
        )
    except ValueError as error:
        raise Refused(Result.MALFORMED, f"form: {error}") from None
    return decode(decoder, msgspec.json.encode(dict(fields)))
