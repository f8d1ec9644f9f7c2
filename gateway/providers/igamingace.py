"""igamingace: iGamingAce, the Deposit of its callback service.

Sends    POST /NAME/Deposit, JSON or a form, with `sign`: the upper-case hex HMAC-SHA256 of agentID + userID +
         amount + refTransactionID + transactionID + roundID + gameID, no separators, the amount with exactly
         two decimals. That is version 2; version 1, of an older page, leaves gameID out.
Gets     HTTP 200 {"code", "message", "platformTransactionID", "balance"}; of errors, code and message alone.
         0 success, 1 general, 2 wrong parameters, 3 bad sign, 4 unknown agent, 5 unknown user, 11 duplicate
Sources  https://pragapi.igamingace.com/: api-reference/callback/deposit, integration/start,
         integration/result-codes

Money dedups on `transactionID`. A repeat is code 11, with the original platformTransactionID and the balance
of that time. Other content under a known id is 2, never 11: that would say that the altered amount was paid.

Quirks
- Without separators, player01 + 1.00 and player0 + 11.00 sign alike, and so do ids that are cut elsewhere. So
  userID must be 4 to 48 alphanumerics, an amount has no leading zero, every field is in the fingerprint, and
  by `signed_digest` the ledger pays one content for each signed message, however it is cut.
- A null or absent field is signed as "", a number as it is written. Only the amount is signed by its value:
  12.3 and 1.23E1 as 12.30, whatever the currency's own decimals. More than two are refused, but for zeros.
- The request names no currency: it is the setting `currency`, or else the player's own.
- `freeSpinID` marks a free-spin win unless it says nothing: null, absent, "", 0, [], {}, false.
- agentID, userID and transactionID may come as whole numbers, and are signed as they are written.
- Needed are agentID, userID, amount and transactionID; the other ids are recorded where they are none.
- A Withdraw's message is also that of a Deposit without a reference: if bets go elsewhere, nobody can tell.
- A BetWin's message is that of a Deposit of the stake, whose ids begin with the win, as 0.00. No Deposit is
  paid whose ids together begin so, with digits, a dot and two digits: iGamingAce's own are 32 hex digits.
- Two integrations may have a secret in common only if neither agentID begins with the other.

DECISIONS
- It retries 50 times, after network faults such as HTTP 502. So what it should send again gets HTTP 502 with
  code 1: `unavailable_status = 502`, or 200 to the letter of 'always HTTP 200', where it may give up.
- `sign_version = "auto"` takes either version until a message of version 2 has been posted by this process,
  then that alone, since such a message cut elsewhere is one of version 1; the log says it once. A message of
  version 1 that was not paid yet can be cut into one of version 2, so version 1 is then told to send again,
  and the log says why: set 2 or 1 as soon as it is known.
- It waits 10 s, so `reply_within_seconds` is 8.

>>> from gateway.providers.signing import hmac_sha256_hex
>>> bet, win = "4146ed8dd6d5497780e9fc273e86bae0", "474e1a293c2f4e7ab122c52d68423fcb"
>>> message = f"Partner01Player0112.30{bet}{win}ab9c15f2efdd46278e4a56b3031272342001"
>>> hmac_sha256_hex(b"1234567890", message.encode()).upper()
'C299A37986C806F27CCBC8D8599E0C8DA732D1604B934917C1ABC0999C244C0D'
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, Self

import msgspec
from pydantic import BeforeValidator, Field

from gateway.providers.base import (
    Callback,
    CallbackRejected,
    IntegrationSettings,
    LastRead,
    Provider,
    Reply,
    Text,
    Win,
    explain,
    json_reply,
)
from gateway.providers.fields import (
    ABSENT,
    Anything,
    IdOrNumber,
    WholeNumber,
    bounded_details,
    decode_json_or_form,
    fixed_decimals,
    id_text,
    lexeme,
    raw_text,
    reference,
    says_nothing,
    spoken,
    unusable,
)
from gateway.providers.sign_versions import SignVersions
from gateway.providers.signing import SigningKeys, hmac_sha256_hex
from shared.money import Currencies
from shared.operations import Credit, Kind
from shared.outcome import Holder, Outcome, OutcomeCode
from shared.settings_types import CurrencyCode
from shared.wire import FindPlayer


class Code(NamedTuple):
    """A result code, and whether iGamingAce should send the same again."""

    code: int
    send_again: bool = False


CODES: Final[Mapping[OutcomeCode, Code]] = {
    OutcomeCode.POSTED: Code(0),
    OutcomeCode.REPLAYED: Code(11),
    OutcomeCode.CONFLICT: Code(2),
    OutcomeCode.UNKNOWN_PLAYER: Code(5),
    OutcomeCode.UNKNOWN_SESSION: Code(1),
    OutcomeCode.SESSION_CLOSED: Code(1),
    OutcomeCode.WRONG_CURRENCY: Code(2),
    OutcomeCode.BALANCE_LIMIT: Code(1),
    OutcomeCode.BAD_SIGNATURE: Code(3),
    OutcomeCode.UNKNOWN_CALLER: Code(4),
    OutcomeCode.MALFORMED: Code(2),
    OutcomeCode.INVALID_TX_ID: Code(2),
    OutcomeCode.UNAVAILABLE: Code(1, send_again=True),
    OutcomeCode.UNPOSTABLE: Code(1, send_again=True),
}
_SIGNED_DECIMALS: Final = 2
_USER_ID: Final = re.compile(r"[A-Za-z0-9]{4,48}")
_BET_AND_WIN: Final = re.compile(rb"[0-9]+\.[0-9]{3,}\.[0-9]{2}")
"""How a BetWin's message goes on after its user, with two amounts, wherever the first is said to begin."""

_VERSIONS: Final = (2, 1)

SignVersion = Annotated[Literal["auto", 2, 1], BeforeValidator(lambda said: {"1": 1, "2": 2}.get(said, said))]


class IGamingAceSettings(IntegrationSettings):
    """`[integrations.NAME]` of an iGamingAce agent."""

    agent_id: str = Field(min_length=1)
    """The agentID that its requests must carry."""

    currency: CurrencyCode | None = None
    """The currency of all its amounts; without it, each player's own."""

    sign_version: SignVersion = "auto"
    """DECISION: the version of its signature: `2` or `1` as soon as it is known, which the log names."""

    unavailable_status: Literal[502, 200] = 502
    """DECISION: the HTTP status of 'send it again'."""

    reply_within_seconds: float = Field(default=8, gt=0, le=60)
    """The provider's window, which is longer than others'."""


class Deposit(msgspec.Struct, frozen=True):
    """The body of /Deposit."""

    agent_id: Text | WholeNumber = msgspec.field(name="agentID")
    user_id: IdOrNumber = msgspec.field(name="userID")
    amount: msgspec.Raw
    transaction_id: IdOrNumber = msgspec.field(name="transactionID")
    round_id: Anything = msgspec.field(name="roundID", default=ABSENT)
    bet_id: Anything = msgspec.field(name="refTransactionID", default=ABSENT)
    game_id: Anything = msgspec.field(name="gameID", default=ABSENT)
    free_spin_id: Anything = msgspec.field(name="freeSpinID", default=ABSENT)
    sign: Text | None = None


class SignedDeposit(NamedTuple):
    """A request, the message that its sign has verified, and of which version."""

    body: Deposit
    signed: bytes
    version: int


_deposit: Final = msgspec.json.Decoder(Deposit)


def signed_message(body: Deposit, version: int) -> bytes:
    """Return what a version of the sign covers. Raises Refused for an amount that can't be signed."""
    amount = fixed_decimals(lexeme(body.amount, "amount"), "amount", _SIGNED_DECIMALS)
    ids = f"{spoken(body.bet_id)}{body.transaction_id}{spoken(body.round_id)}"
    game_id = spoken(body.game_id) if version == 2 else ""
    return f"{body.agent_id}{body.user_id}{amount}{ids}{game_id}".encode()


class IGamingAce(Provider[IGamingAceSettings, SignedDeposit]):
    """One iGamingAce agent."""

    paths: ClassVar = ("Deposit",)
    retry_reply_varies: ClassVar = False
    settings_type: ClassVar = IGamingAceSettings

    def __init__(self, name: str, settings: IGamingAceSettings, secrets: SigningKeys, currencies: Currencies) -> None:
        """Check that the currency is one. Raises SettingsError."""
        super().__init__(name, settings, secrets, currencies)
        self._versions: Final = SignVersions(name, settings.sign_version, _VERSIONS)
        self._verified: Final = LastRead(self._verify)
        if settings.currency is not None:
            self.require_currency("currency", settings.currency)

    def is_readable_from(self, other: Self) -> bool:
        """Tell by the agents, unless one is how the other begins: userID follows without a separator."""
        agent, others = self.settings.agent_id, other.settings.agent_id
        return not (agent.startswith(others) or others.startswith(agent))

    def authenticate(self, callback: Callback) -> None:
        """Verify the agent and the sign."""
        self._verified.of(callback)

    def parse(self, callback: Callback) -> SignedDeposit:
        """Return what `authenticate` has read and verified."""
        return self._verified.of(callback)

    def _verify(self, callback: Callback) -> SignedDeposit:
        body = decode_json_or_form(_deposit, callback.body)
        if not _USER_ID.fullmatch(str(body.user_id)):
            raise CallbackRejected(OutcomeCode.MALFORMED, "userID: not 4 to 48 letters and digits")
        if str(body.agent_id) != self.settings.agent_id:
            raise CallbackRejected(OutcomeCode.UNKNOWN_CALLER, "agentID is not the configured one")
        for version in self._versions.accepted:
            message = signed_message(body, version)
            if self._is_signed(body, message):
                return SignedDeposit(body, message, version)
        # The version 2 that was seen may have been cut out of a captured request of version 1. So that one is
        # to be sent again: a final answer would lose every honest win until somebody looks.
        if self.settings.sign_version == "auto" and self._is_signed(body, signed_message(body, 1)):
            raise CallbackRejected(OutcomeCode.UNAVAILABLE, "sign version 1 after version 2: set sign_version")
        raise CallbackRejected(OutcomeCode.BAD_SIGNATURE)

    def _is_signed(self, body: Deposit, message: bytes) -> bool:
        return self.secrets.verify(body.sign or "", lambda key: hmac_sha256_hex(key, message).upper())

    def lookup(self, message: SignedDeposit) -> FindPlayer | None:
        """Ask for the player's own currency, unless a setting says it."""
        return None if self.settings.currency else FindPlayer(str(message.body.user_id), self.name)

    def normalize(self, message: SignedDeposit, holder: Holder | None) -> Credit:
        """Make a credit in the configured currency or the player's."""
        _refuse_bet_and_win(message)
        body, currency = message.body, self.settings.currency or (holder.currency if holder else None)
        if currency is None:
            raise CallbackRejected(OutcomeCode.UNKNOWN_PLAYER)
        kind = Kind.WIN if says_nothing(body.free_spin_id) else Kind.FREE_SPIN
        round_id, game_id, bet_id = map(reference, (body.round_id, body.game_id, body.bet_id))
        return Credit(
            integration=self.name,
            provider_tx_id=id_text(body.transaction_id, "transactionID"),
            player_id=str(body.user_id),
            currency=currency,
            amount_minor=self.amount(lexeme(body.amount, "amount"), currency),
            kind=kind,
            wallet=self.wallet_for(kind),
            round_id=round_id,
            game_id=game_id,
            bet_id=bet_id,
            details=bounded_details(
                freeSpinID=None if kind is Kind.WIN else raw_text(body.free_spin_id),
                roundID=unusable(body.round_id, round_id),
                gameID=unusable(body.game_id, game_id),
                refTransactionID=unusable(body.bet_id, bet_id),
            ),
            signed_digest=hashlib.sha256(message.signed).digest(),
        )

    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Say the transfer and the balance after it, or a code; learn the version from what was posted."""
        if outcome.code is OutcomeCode.POSTED and not self._versions.is_found:
            posted = self.parse(callback)
            # Without a gameID both versions sign the same, which tells nothing of what iGamingAce speaks.
            if spoken(posted.body.game_id):
                self._versions.learn(posted.version)
        (code, send_again), receipt = CODES[outcome.code], outcome.receipt
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

    def sample_request(self, win: Win) -> Callback:
        """Return a signed /Deposit."""
        request: dict[str, object] = {
            "agentID": self.settings.agent_id,
            "userID": win.player_id,
            "amount": msgspec.Raw(fixed_decimals(win.amount, "amount", _SIGNED_DECIMALS).encode()),
            "refTransactionID": None,
            "transactionID": win.provider_tx_id,
            "roundID": win.round_id,
            "gameID": 1566,
            "freeSpinID": None,
        }
        body = _deposit.decode(msgspec.json.encode(request))
        message = signed_message(body, self._versions.accepted[0])
        request["sign"] = hmac_sha256_hex(self.secrets.signing, message).upper()
        return Callback("Deposit", msgspec.json.encode(request), {"content-type": "application/json"})


def _refuse_bet_and_win(message: SignedDeposit) -> None:
    """Raise Refused for the signed message of a BetWin, whose stake would be paid as a win."""
    account = f"{message.body.agent_id}{message.body.user_id}".encode()
    if _BET_AND_WIN.match(message.signed, len(account)):
        raise CallbackRejected(OutcomeCode.MALFORMED, "a bet and win is not paid as a win")
