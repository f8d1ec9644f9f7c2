"""hpgames: HPGames, credit and bulk credit of its wallet.

Sends    POST /NAME/credit, JSON, with `hash` in the body: the lower-case hex HMAC-SHA256 of merchantId +
         betId + amount + transactionId + timestamp, no separators, numbers exactly as in the body.
         POST /NAME/bulkCredit, {"creditRequests": [...]}, each item signed on its own.
Gets     HTTP 200 always.
         success  {"errorCode": 0, "errorText": "", "balance", "currency", "transactionId",
                  "accountTransactionId"}
         error    {"errorCode", "errorText"}, and "transactionId" whenever it can be read
         bulk     {"creditResponses": [...]}, the same number in the same order
Sources  https://docs.hplay.games/docs/: wallet/credit, wallet/overview, request-signing

Money dedups on `transactionId`. A repeat, also within one bulk request, gets the original success.

Quirks
- 5, 5.0 and 5.00 hash differently, so `amount` and `timestamp` are kept as written.
- merchantId, betId and transactionId must be UUIDs, or else the signed text could be split in other places. So a
  message determines its fields, and there is no `signed_digest`: its first 72 characters are merchantId and
  betId; its last hyphen is in transactionId, because a timestamp has none, though an amount such as 1E-2 may.
- The hash names no operation: a debit's body looks like a credit's. Where bets are sent to another URL, a bet
  that is sent here can't be recognized.
- Required are the signed fields, playerId and currency; the others may hold anything. A win of a type other than
  the three known ones is paid as REGULAR, and its type recorded.
- Two integrations may share a secret only if their merchants differ, whose ids are signed.
- playerId may be a whole number: 12001 is "12001".
- A UUID in upper and in lower case is the same transfer; hash and reply use the letters as sent.
- amount 0 reports a lost bet and is recorded. A JACKPOT follows no bet, and still has a `betId`.
- `authToken` is a player's live token and is never stored.

DECISIONS
- Its table of error codes isn't public, except for 1005. ERROR_CODES are ours until HPGames has confirmed them:
  `[integrations.NAME.error_codes]` replaces each, by the outcome's name, and the start warns of unconfirmed ones.
- A bulk request beyond its limits gets one error, without `creditResponses`; nothing of it is posted.
- If none of the first 100 items of a bulk request can be paid, the others are not read: 'send it again'.

>>> from gateway.providers.signing import hmac_sha256_hex
>>> hmac_sha256_hex(b"secretkey", b"1387a6cc-3651-4473-ae52-e415caea33951709289932725")
'9ed3d547f9a672ecd4884304e859af84263410d613ff2a2bb7d70a8221d7e544'
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Self
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from pydantic import Field, PositiveInt, field_validator

from gateway.providers.base import (
    Callback,
    CallbackRejected,
    CurrencyText,
    IntegrationSettings,
    Provider,
    Reply,
    Text,
    Win,
    explain,
    json_reply,
)
from gateway.providers.bulk import Bulk
from gateway.providers.echo import Echo
from gateway.providers.fields import (
    ABSENT,
    Anything,
    IdOrNumber,
    bounded_details,
    decode,
    id_text,
    number_lexeme,
    raw_if_unusable,
    raw_text,
    reference,
    scalar_text,
)
from gateway.providers.signing import SigningKeys, hmac_sha256_hex
from shared.money import Currencies
from shared.operations import Credit, Kind
from shared.outcome import Outcome, OutcomeCode
from shared.queries import PlayerRef

PAID: Final = 0
ERROR_CODES: Final[Mapping[OutcomeCode, int]] = {
    OutcomeCode.POSTED: PAID,
    OutcomeCode.REPLAYED: PAID,
    OutcomeCode.CONFLICT: 1007,
    OutcomeCode.UNKNOWN_PLAYER: 1004,
    OutcomeCode.UNKNOWN_SESSION: 1000,
    OutcomeCode.SESSION_CLOSED: 1000,
    OutcomeCode.WRONG_CURRENCY: 1006,
    OutcomeCode.BALANCE_LIMIT: 1000,
    OutcomeCode.BAD_SIGNATURE: 1001,
    OutcomeCode.UNKNOWN_CALLER: 1003,
    OutcomeCode.MALFORMED: 1002,
    OutcomeCode.INVALID_TX_ID: 1002,
    OutcomeCode.UNAVAILABLE: 1008,
    OutcomeCode.UNPOSTABLE: 1000,
}
_KINDS: Final = {"REGULAR": Kind.WIN, "REWARD": Kind.REWARD, "JACKPOT": Kind.JACKPOT}
_SAMPLE_TIMESTAMP: Final = 1_773_935_126_789
_TIMESTAMP_DIGITS_MAX: Final = 19

SIGNED_BYTES_MIN: Final = 3 * 36 + 64
"""Three UUIDs and a hash: a shorter body can't be signed, and a bulk request may hold a thousand of them."""

UuidText = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")]


class HpGamesSettings(IntegrationSettings):
    """`[integrations.NAME]` of an HPGames account."""

    merchant_id: UUID
    """The merchantId that its requests must carry."""

    error_codes: dict[OutcomeCode, PositiveInt] = Field(default={})
    """DECISION: codes that HPGames has confirmed, by outcome, in place of ours; never 0, which means 'paid'."""

    bulk_items_max: int = Field(default=1_000, ge=1)
    """Items of a bulkCredit; one of more posts nothing."""

    bulk_body_bytes_max: int = Field(default=1_048_576, ge=1_024)
    """Bytes of a bulkCredit's body, in place of `[gateway] body_bytes_max`."""

    @field_validator("error_codes")
    @classmethod
    def _errors_only(cls, codes: dict[OutcomeCode, int]) -> dict[OutcomeCode, int]:
        if any(ERROR_CODES[result] == PAID for result in codes):
            raise ValueError("posted and replayed are no errors: their code is 0")
        return codes


class Signed(msgspec.Struct, frozen=True, rename="camel"):
    """The fields that the hash covers, and the hash."""

    merchant_id: UuidText
    bet_id: UuidText
    amount: msgspec.Raw
    transaction_id: UuidText
    timestamp: msgspec.Raw
    hash: Text | None = None


class CreditRequest(msgspec.Struct, frozen=True, rename="camel"):
    """The body of /credit and of an item of /bulkCredit, without the fields that only the hash needs."""

    bet_id: UuidText
    transaction_id: UuidText
    amount: msgspec.Raw
    currency: CurrencyText
    player_id: IdOrNumber
    timestamp: msgspec.Raw
    created: Anything = ABSENT
    game_id: Anything = ABSENT
    type: Anything = ABSENT
    reward_id: Anything = ABSENT
    reward_type: Anything = ABSENT
    jackpot_id: Anything = ABSENT


_signed: Final = msgspec.json.Decoder(Signed)
_request: Final = msgspec.json.Decoder(CreditRequest)
_echo: Final = Echo("transactionId")


class HpGames(Provider[HpGamesSettings, CreditRequest]):
    """One HPGames account."""

    paths: ClassVar = ("credit", "bulkCredit")
    settings_type: ClassVar = HpGamesSettings

    def __init__(self, name: str, settings: HpGamesSettings, secrets: SigningKeys, currencies: Currencies) -> None:
        """Replace the codes that HPGames has confirmed."""
        super().__init__(name, settings, secrets, currencies)
        self._merchant_id: Final = str(settings.merchant_id)
        self._bulk: Final = Bulk("creditRequests", "creditResponses", settings.bulk_items_max)
        self._codes: Final[Mapping[OutcomeCode, int]] = {**ERROR_CODES, **settings.error_codes}

    def startup_warning(self) -> str | None:
        """List the codes that HPGames has not confirmed."""
        errors = {result: code for result, code in ERROR_CODES.items() if code != PAID}
        unconfirmed = [f"{r} {code}" for r, code in errors.items() if r not in self.settings.error_codes]
        return "error codes that HPGames has not confirmed: " + ", ".join(unconfirmed) if unconfirmed else None

    def is_readable_from(self, other: Self) -> bool:
        """Compare the merchants, whose ids are signed."""
        return self.settings.merchant_id != other.settings.merchant_id

    def body_bytes_max(self, path: str, default_bytes: int) -> int:
        """Allow bulk requests to be larger."""
        return self.settings.bulk_body_bytes_max if path == "bulkCredit" else default_bytes

    def holds_few(self, callback: Callback) -> bool:
        """Estimate the items of a bulk request before it is decoded."""
        return callback.path == "credit" or self._bulk.holds_few(callback.body)

    def split(self, callback: Callback) -> list[Callback]:
        """Split a bulk request; each credit keeps its own bytes."""
        if callback.path == "credit":
            return [callback]
        return [Callback("credit", item, callback.headers) for item in self._bulk.split(callback.body)]

    def join(self, callback: Callback, replies: Sequence[Reply]) -> Reply:
        """Join a bulk request's replies into one."""
        return replies[0] if callback.path == "credit" else self._bulk.join(replies)

    def authenticate(self, callback: Callback) -> None:
        """Verify the merchant, and the hash over the numbers as written."""
        if len(callback.body) < SIGNED_BYTES_MIN:
            raise CallbackRejected(OutcomeCode.MALFORMED, "too short to be signed")
        signed = decode(_signed, callback.body)
        if signed.merchant_id.lower() != self._merchant_id:
            raise CallbackRejected(OutcomeCode.UNKNOWN_CALLER, "merchantId is not the configured one")
        timestamp = number_lexeme(signed.timestamp, "timestamp")
        if not timestamp.isdigit() or len(timestamp) > _TIMESTAMP_DIGITS_MAX:
            raise CallbackRejected(OutcomeCode.MALFORMED, "timestamp: not a whole number of milliseconds")
        amount = number_lexeme(signed.amount, "amount")
        message = f"{signed.merchant_id}{signed.bet_id}{amount}{signed.transaction_id}{timestamp}".encode()
        if not self.secrets.verify(signed.hash or "", lambda key: hmac_sha256_hex(key, message)):
            raise CallbackRejected(OutcomeCode.BAD_SIGNATURE)

    def parse(self, callback: Callback) -> CreditRequest:
        """Decode the whole body."""
        return decode(_request, callback.body)

    def normalize(self, message: CreditRequest, player: PlayerRef | None) -> Credit:
        """Return a credit, with the UUIDs that money dedups on in lower case."""
        del player  # the request names player and currency itself
        kind, game_id = _KINDS.get(scalar_text(message.type)), reference(message.game_id)
        return Credit(
            integration=self.name,
            provider_tx_id=message.transaction_id.lower(),
            player_id=id_text(message.player_id, "playerId"),
            currency=message.currency,
            amount_minor=self.amount(number_lexeme(message.amount, "amount"), message.currency),
            kind=kind or Kind.WIN,
            wallet=self.wallet_for(kind or Kind.WIN),
            game_id=game_id,
            bet_id=message.bet_id.lower(),
            details=bounded_details(
                timestamp=number_lexeme(message.timestamp, "timestamp"),
                created=raw_text(message.created),
                gameId=raw_if_unusable(message.game_id, game_id),
                type=raw_if_unusable(message.type, kind),
                rewardId=raw_text(message.reward_id),
                rewardType=raw_text(message.reward_type),
                jackpotId=raw_text(message.jackpot_id),
            ),
        )

    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Reply with the balance after the credit, or with an error; both repeat transactionId as it was sent."""
        code, receipt, echo = self._codes[outcome.code], outcome.receipt, _echo.read(callback.body)
        if receipt is None:
            return json_reply({"errorCode": code, "errorText": explain(outcome), **echo})
        return json_reply(
            {
                "errorCode": code,
                "errorText": "",
                "balance": self.number(receipt.balance_minor, receipt.currency),
                "currency": receipt.currency,
                **echo,
                "accountTransactionId": receipt.transfer_id,
            }
        )

    def sample_request(self, win: Win) -> Callback:
        """Return a signed /credit."""
        bet_id = uuid5(NAMESPACE_URL, win.round_id)
        message = f"{self._merchant_id}{bet_id}{win.amount}{win.provider_tx_id}{_SAMPLE_TIMESTAMP}"
        request = {
            "merchantId": self._merchant_id,
            "timestamp": _SAMPLE_TIMESTAMP,
            "betId": str(bet_id),
            "transactionId": win.provider_tx_id,
            "amount": msgspec.Raw(win.amount.encode()),
            "currency": win.currency,
            "created": "2026-03-19T15:46:10.654321Z",
            "gameId": 1,
            "type": "REGULAR",
            "authToken": win.session_id,
            "playerId": win.player_id,
            "hash": hmac_sha256_hex(self.secrets.signing, message.encode()),
        }
        return Callback("credit", msgspec.json.encode(request), {"content-type": "application/json"})
