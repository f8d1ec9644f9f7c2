"""klas: Klas Gaming, credit and balance of its seamless wallet.

Sends    POST /NAME/credit and POST /NAME/balance, JSON, with X-Signature: the hex HMAC-SHA256 of the whole
         raw body by the shared secret, in either case.
Gets     HTTP 200 always, and X-Signature over the reply's own body, errors included. Amounts are strings.
         credit   {"balance", "casino_transfer_id", "bonus_amount", "real_amount", "status_code": "OK"}
         balance  {"balance", "status_code": "OK"}
         error    only {"status_code"}: ERR_INTEGRITY_CHECK_FAILED for a bad signature, ERR_TIMEOUT if it
                  should send the request again, ERR_UNKNOWN for everything else
Sources  https://docs.klasbase.com/docs/feed-api/: deposit, balance, hmac-message-integrity

Money dedups on `transfer_id`; `request_id`, `timestamp` and `session_id` identify one delivery attempt.

Quirks
- `timestamp` is in seconds on one page and in milliseconds on another: recorded, never a reason to refuse.
- `amount` already includes `jackpot_wins`, which is a string in the example and an object in the table.
- `gift_spin` marks a free-spin win unless it is blank: null, {}, [], "", 0, false.
- A win with an empty or unknown session is owed, too: the session is recorded and never looked up.
- player_id and transfer_id may be whole numbers: 12001 is "12001".
- Only player_id, transfer_id, amount and currency are required. Any other field may hold anything, as for a
  promotion without a round: a value that is no id is recorded in the details.
- The signature covers the whole body, so a signed message determines its fields: no `signed_digest`.
- No signature names its operation, and no bet or refund may be paid as a win. A bet's body is recognized by its
  reason, BET, or GIFT_SPIN for a free spin; a refund's by a reference_id without a round_completed.
- The signature does not name the account either, so two integrations may not share a secret.

DECISIONS
- `deduction` is not explained anywhere, so by default it is only recorded. `deduction = "subtract"` subtracts it
  from the amount, and refuses a win whose deduction is no amount, since nobody knows how much is owed.
- A reason is compared by its letters only, in either case. A reason that is no text can't be a bet's: it is
  recorded, and the win is paid. A free-spin win is recognized by gift_spin; with the reason GIFT_SPIN it would
  be refused, since its amount can't be distinguished from a stake.
- ERR_TIMEOUT is the only code on its page that means 'send it again', so it is also the reply to credits that
  the ledger could not post.

>>> from gateway.providers.signing import hmac_sha256_hex
>>> body = b'{"request_id":"1","timestamp":1710000000,"session_id":"2","player_id":"12001"}'
>>> hmac_sha256_hex(b"secret", body)
'1a1c123d8a6cbc52859627620c236390c5141f2122bcb10918ac5e304736998a'
"""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import msgspec

from gateway.providers.base import (
    Callback,
    CallbackRejected,
    CurrencyText,
    IntegrationSettings,
    Provider,
    Reply,
    Win,
    json_reply,
)
from gateway.providers.fields import (
    ABSENT,
    Anything,
    IdOrNumber,
    bounded_details,
    decode,
    id_text,
    is_blank,
    lexeme,
    raw_if_unusable,
    raw_text,
    reference,
    scalar_text,
)
from gateway.providers.signing import hmac_sha256_hex
from shared.ids import ID_CHARACTERS_MAX
from shared.operations import Credit, Kind
from shared.outcome import Balance, Outcome, OutcomeCode
from shared.queries import FindPlayer, PlayerRef

STATUS_CODES: Final[Mapping[OutcomeCode, str]] = {
    OutcomeCode.POSTED: "OK",
    OutcomeCode.REPLAYED: "OK",
    OutcomeCode.CONFLICT: "ERR_UNKNOWN",
    OutcomeCode.UNKNOWN_PLAYER: "ERR_UNKNOWN",
    OutcomeCode.UNKNOWN_SESSION: "ERR_UNKNOWN",
    OutcomeCode.SESSION_CLOSED: "ERR_UNKNOWN",
    OutcomeCode.WRONG_CURRENCY: "ERR_UNKNOWN",
    OutcomeCode.BALANCE_LIMIT: "ERR_UNKNOWN",
    OutcomeCode.BAD_SIGNATURE: "ERR_INTEGRITY_CHECK_FAILED",
    OutcomeCode.UNKNOWN_CALLER: "ERR_UNKNOWN",
    OutcomeCode.MALFORMED: "ERR_UNKNOWN",
    OutcomeCode.INVALID_TX_ID: "ERR_UNKNOWN",
    OutcomeCode.UNAVAILABLE: "ERR_TIMEOUT",
    OutcomeCode.UNPOSTABLE: "ERR_TIMEOUT",
}
BETS: Final = frozenset({"bet", "giftspin"})
"""The reasons of a bet, reduced to lower-case letters."""

_SAMPLE_TIMESTAMP: Final = 1_710_000_000


class KlasSettings(IntegrationSettings):
    """`[integrations.NAME]` of a Klas account."""

    deduction: Literal["record", "subtract"] = "record"
    """DECISION: whether a deduction is only recorded, or taken off the amount."""


class BalanceRequest(msgspec.Struct, frozen=True):
    """The body of /balance, reduced to its one relevant field."""

    player_id: IdOrNumber


class CreditRequest(msgspec.Struct, frozen=True):
    """The body of /credit."""

    player_id: IdOrNumber
    transfer_id: IdOrNumber
    amount: msgspec.Raw
    currency: CurrencyText
    request_id: Anything = ABSENT
    timestamp: Anything = ABSENT
    session_id: Anything = ABSENT
    game_code: Anything = ABSENT
    round_id: Anything = ABSENT
    round_completed: Anything = ABSENT
    reason: Anything = ABSENT
    reference_id: Anything = ABSENT
    gift_spin: Anything = ABSENT
    jackpot_wins: Anything = ABSENT
    deduction: Anything = ABSENT


_decoders: Final[Mapping[str, msgspec.json.Decoder[CreditRequest | BalanceRequest]]] = {
    "credit": msgspec.json.Decoder(CreditRequest),
    "balance": msgspec.json.Decoder(BalanceRequest),
}


class Klas(Provider[KlasSettings, CreditRequest | BalanceRequest]):
    """One Klas account."""

    paths: ClassVar = ("credit", "balance")
    headers: ClassVar = frozenset({"x-signature"})
    retry_reply_varies: ClassVar = False
    settings_type: ClassVar = KlasSettings

    def authenticate(self, callback: Callback) -> None:
        """Verify the X-Signature header against the whole body."""
        given = callback.header("x-signature").lower()
        if not self.secrets.verify(given, lambda key: hmac_sha256_hex(key, callback.body)):
            raise CallbackRejected(OutcomeCode.BAD_SIGNATURE)

    def parse(self, callback: Callback) -> CreditRequest | BalanceRequest:
        """Decode the body of the operation that the path names."""
        return decode(_decoders[callback.path], callback.body, too_deep=OutcomeCode.UNAVAILABLE)

    def normalize(self, message: CreditRequest | BalanceRequest, player: PlayerRef | None) -> Credit | FindPlayer:
        """Return a credit, or the query for a balance."""
        del player  # the request names the player itself
        if isinstance(message, BalanceRequest):
            return FindPlayer(id_text(message.player_id, "player_id"), self.name)
        _refuse_other_operations(message)
        kind = Kind.WIN if is_blank(message.gift_spin) else Kind.FREE_SPIN
        round_id, game_id = reference(message.round_id), reference(message.game_code)
        session_id = reference(message.session_id, ID_CHARACTERS_MAX)
        return Credit(
            integration=self.name,
            provider_tx_id=id_text(message.transfer_id, "transfer_id"),
            player_id=id_text(message.player_id, "player_id"),
            currency=message.currency,
            amount_minor=self._amount_minor(message),
            kind=kind,
            wallet=self.wallet_for(kind),
            round_id=round_id,
            round_closed=bytes(message.round_completed) == b"true",
            game_id=game_id,
            session_id=session_id,
            details=bounded_details(
                request_id=raw_text(message.request_id),
                timestamp=raw_text(message.timestamp),
                session_id=raw_if_unusable(message.session_id, session_id),
                game_code=raw_if_unusable(message.game_code, game_id),
                round_id=raw_if_unusable(message.round_id, round_id),
                reason=raw_text(message.reason),
                gift_spin=None if kind is Kind.WIN else raw_text(message.gift_spin),
                jackpot_wins=raw_text(message.jackpot_wins),
                deduction=raw_text(message.deduction),
            ),
        )

    def _amount_minor(self, message: CreditRequest) -> int:
        amount_minor = self.amount(lexeme(message.amount, "amount"), message.currency)
        if self.settings.deduction == "record" or is_blank(message.deduction):
            return amount_minor
        deduction_minor = self.amount(lexeme(message.deduction, "deduction"), message.currency)
        if deduction_minor > amount_minor:
            raise CallbackRejected(OutcomeCode.MALFORMED, "deduction: more than the amount")
        return amount_minor - deduction_minor

    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Reply with the amount paid into each wallet, or with a status code only."""
        del callback  # nothing of the request is echoed
        status_code, receipt = STATUS_CODES[outcome.code], outcome.receipt
        if receipt is None:
            return self._signed({"status_code": status_code})
        text = self.currencies.to_text
        return self._signed(
            {
                "balance": text(receipt.balance_minor, receipt.currency),
                "casino_transfer_id": receipt.transfer_id,
                "bonus_amount": text(receipt.bonus_minor, receipt.currency),
                "real_amount": text(receipt.real_minor, receipt.currency),
                "status_code": status_code,
            }
        )

    def render_balance(self, callback: Callback, balance: Balance) -> Reply:
        """Reply with a balance."""
        del callback
        text = self.currencies.to_text(balance.balance_minor, balance.currency)
        return self._signed({"balance": text, "status_code": "OK"})

    def _signed(self, content: Mapping[str, str]) -> Reply:
        reply = json_reply(content)
        signature = hmac_sha256_hex(self.secrets.signing, reply.body)
        return reply._replace(headers=(("X-Signature", signature),))

    def sample_request(self, win: Win) -> Callback:
        """Return a signed /credit."""
        body = msgspec.json.encode(
            {
                "request_id": win.provider_tx_id,
                "timestamp": _SAMPLE_TIMESTAMP,
                "session_id": win.session_id,
                "player_id": win.player_id,
                "game_code": "ABSlot",
                "transfer_id": win.provider_tx_id,
                "round_id": win.round_id,
                "round_completed": True,
                "amount": win.amount,
                "currency": win.currency,
                "reason": "win",
                "gift_spin": {},
                "jackpot_wins": "0",
                "deduction": "0",
            }
        )
        signature = hmac_sha256_hex(self.secrets.signing, body)
        return Callback("credit", body, {"content-type": "application/json", "x-signature": signature})


def _refuse_other_operations(message: CreditRequest) -> None:
    """Raise CallbackRejected for the signed body of a bet or a refund, since no signature names its operation.

    A refund has a `reference_id`, which no win has, and lacks `round_completed`, which every win has.
    """
    if "".join(filter(str.isalpha, scalar_text(message.reason))).lower() in BETS:
        raise CallbackRejected(OutcomeCode.MALFORMED, "reason: a bet is not paid as a win")
    if not is_blank(message.reference_id) and bytes(message.round_completed) == bytes(ABSENT):
        raise CallbackRejected(OutcomeCode.MALFORMED, "reference_id: a refund is not paid as a win")
