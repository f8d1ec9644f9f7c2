"""igamingace: iGamingAce, the Deposit of its callback service.

Sends    POST /NAME/Deposit, JSON or a form, with `sign`: the upper-case hex HMAC-SHA256 of agentID + userID +
         amount + refTransactionID + transactionID + roundID + gameID, no separators, the amount with exactly
         two decimals. That is version 2; version 1, on an older page, leaves gameID out.
Gets     HTTP 200 {"code", "message", "platformTransactionID", "balance"}; an error has only code and message.
         0 success, 1 general, 2 wrong parameters, 3 bad sign, 4 unknown agent, 5 unknown user, 11 duplicate
Sources  https://pragapi.igamingace.com/: api-reference/callback/deposit, integration/start,
         integration/result-codes

Money dedups on `transactionID`. A repeat gets code 11, with the original platformTransactionID and the balance
of that time. Other content under a known id gets 2, never 11, which would mean that the altered amount was paid.

Quirks
- Without separators, player01 + 1.00 and player0 + 11.00 have the same signature, and so have ids that are split
  elsewhere. So userID must be 4 to 48 alphanumerics, an amount has no leading zero, every field is in the
  fingerprint, and by `signed_digest` the ledger pays one content for each signed text, however it is split.
- A null or absent field is signed as "", a number as written. Only the amount is signed by its value: 12.3 and
  1.23E1 as 12.30, whatever the currency's own decimals. More than two decimals are refused unless they are zeros.
- The request names no currency: it is the setting `currency`, or else the player's own.
- `freeSpinID` marks a free-spin win unless it is blank: null, absent, "", 0, [], {}, false.
- agentID, userID and transactionID may be whole numbers, and are signed as written.
- Required are agentID, userID, amount and transactionID; other ids are recorded in the details if they are invalid.
- A Withdraw is signed like a Deposit without a reference: where bets are sent to another URL, a bet that is sent
  here can't be recognized.
- A BetWin is signed like a Deposit of the stake whose ids begin with the win, such as 0.00. So no Deposit is paid
  whose joined ids begin with digits, a dot and two digits: iGamingAce's own ids are 32 hex digits.
- Two integrations may share a secret only if neither agentID begins with the other.

DECISIONS
- It retries 50 times after network faults such as HTTP 502. So a request that it should send again gets HTTP 502
  with code 1: `unavailable_status = 502`, or 200 by the letter of 'always HTTP 200', where it may give up.
- `sign_version = "auto"` accepts both versions until this process has posted a message of version 2, and then
  only that one, which is logged once: a message of version 2 that is split elsewhere is one of version 1. A
  message of version 1 that is still unpaid can be split into one of version 2; so from then on version 1 gets
  'send it again', with the reason in the log: set 2 or 1 as soon as it is known.
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
    LastParsed,
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
    is_blank,
    lexeme,
    raw_if_unusable,
    raw_text,
    reference,
    scalar_text,
)
from gateway.providers.sign_versions import SignVersions
from gateway.providers.signing import SigningKeys, hmac_sha256_hex
from shared.money import Currencies
from shared.operations import Credit, Kind
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindPlayer, PlayerRef
from shared.settings_types import CurrencyCode


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
"""The signed text of a BetWin after its user: two amounts, wherever the first is taken to begin."""

_VERSIONS: Final = (2, 1)

SignVersion = Annotated[Literal["auto", 2, 1], BeforeValidator(lambda value: {"1": 1, "2": 2}.get(value, value))]


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
    """A request, the text that its sign has verified, and the version of the sign."""

    body: Deposit
    signed: bytes
    version: int


_deposit: Final = msgspec.json.Decoder(Deposit)


def signed_message(body: Deposit, version: int) -> bytes:
    """Return the text that a version of the sign covers. Raises CallbackRejected for an amount that can't be signed."""
    amount = fixed_decimals(lexeme(body.amount, "amount"), "amount", _SIGNED_DECIMALS)
    ids = f"{scalar_text(body.bet_id)}{body.transaction_id}{scalar_text(body.round_id)}"
    game_id = scalar_text(body.game_id) if version == 2 else ""
    return f"{body.agent_id}{body.user_id}{amount}{ids}{game_id}".encode()


class IGamingAce(Provider[IGamingAceSettings, SignedDeposit]):
    """One iGamingAce agent."""

    paths: ClassVar = ("Deposit",)
    retry_reply_varies: ClassVar = False
    settings_type: ClassVar = IGamingAceSettings

    def __init__(self, name: str, settings: IGamingAceSettings, secrets: SigningKeys, currencies: Currencies) -> None:
        """Check the setting `currency`. Raises SettingsError."""
        super().__init__(name, settings, secrets, currencies)
        self._versions: Final = SignVersions(name, settings.sign_version, _VERSIONS)
        self._verified: Final = LastParsed(self._verify)
        if settings.currency is not None:
            self.require_currency("currency", settings.currency)

    def is_readable_from(self, other: Self) -> bool:
        """Compare the agents: neither may begin with the other, because userID follows without a separator."""
        agent, others = self.settings.agent_id, other.settings.agent_id
        return not (agent.startswith(others) or others.startswith(agent))

    def authenticate(self, callback: Callback) -> None:
        """Verify the agent and the sign."""
        self._verified.of(callback)

    def parse(self, callback: Callback) -> SignedDeposit:
        """Return the request that `authenticate` has decoded and verified."""
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
        # The posted message of version 2 may have been split out of a captured request of version 1. So version 1
        # is asked to send again: a final reply would lose every genuine win until somebody notices.
        if self.settings.sign_version == "auto" and self._is_signed(body, signed_message(body, 1)):
            raise CallbackRejected(OutcomeCode.UNAVAILABLE, "sign version 1 after version 2: set sign_version")
        raise CallbackRejected(OutcomeCode.BAD_SIGNATURE)

    def _is_signed(self, body: Deposit, message: bytes) -> bool:
        return self.secrets.verify(body.sign or "", lambda key: hmac_sha256_hex(key, message).upper())

    def lookup(self, message: SignedDeposit) -> FindPlayer | None:
        """Return the query for the player's own currency, unless a setting names the currency."""
        return None if self.settings.currency else FindPlayer(str(message.body.user_id), self.name)

    def normalize(self, message: SignedDeposit, player: PlayerRef | None) -> Credit:
        """Return a credit in the configured currency, or in the player's."""
        _refuse_bet_and_win(message)
        body, currency = message.body, self.settings.currency or (player.currency if player else None)
        if currency is None:
            raise CallbackRejected(OutcomeCode.UNKNOWN_PLAYER)
        kind = Kind.WIN if is_blank(body.free_spin_id) else Kind.FREE_SPIN
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
                roundID=raw_if_unusable(body.round_id, round_id),
                gameID=raw_if_unusable(body.game_id, game_id),
                refTransactionID=raw_if_unusable(body.bet_id, bet_id),
            ),
            signed_digest=hashlib.sha256(message.signed).digest(),
        )

    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Reply with the transfer and the balance after it, or with a code; learn the version of a posted credit."""
        if outcome.code is OutcomeCode.POSTED and not self._versions.is_determined:
            posted = self.parse(callback)
            # Without a gameID both versions sign the same text, which does not tell them apart.
            if scalar_text(posted.body.game_id):
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
    """Raise CallbackRejected for the signed text of a BetWin, whose stake would be paid as a win."""
    account = f"{message.body.agent_id}{message.body.user_id}".encode()
    if _BET_AND_WIN.match(message.signed, len(account)):
        raise CallbackRejected(OutcomeCode.MALFORMED, "a bet and win is not paid as a win")
