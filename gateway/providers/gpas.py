"""gpas: GPAS, the credit of its operator wallet.

Sends    POST /NAME/movements/credit?walletSessionId=..., JSON, with x-parent-system-id, and x-signature: the
         hex SHA1 of raw body + secret, in capitals.
Gets     HTTP 200 {"status": "CONFIRMED", "movementId", "leftBalance", "amountBonus", "subWalletsSummary"},
         amounts as numbers; or HTTP 400 {"code", "type", "message"}; HTTP 500 if it should send it again.
Sources  https://docs.gpas.live/: integration/credit, integration/close, appendices/idempotence, its errors

Money dedups on `externalReference`. Neither player nor currency is in the body: both come from the wallet
session, which the signature does not cover. So a reference is unique in the whole integration, and the same
reference with another player's session is a conflict.

Quirks
- externalReference may be a whole number: 12001 is "12001".
- `value` is a JSON string or a number; the example of the signature has a string.
- `tags` is a dynamic dictionary: up to 64 are recorded, values other than strings as written. A win whose tags
  are no dictionary is paid nevertheless.
- The signature covers the whole body, so a signed message determines its fields: no `signed_digest`.
- The signature covers no header, so anyone can write another x-parent-system-id: two integrations may not share
  a secret, even with different parent systems.
- Code 1001 means a wrong parent system with HTTP 400, and any fault of ours with HTTP 500.

DECISIONS
- Its pages ask both for an error and for the original success on a repeat: `duplicate_reply = "original"`, or
  "error" for 1003.
- Its pages forbid operations after a session's close, but a win is owed: `pay_closed_sessions = true`, or
  false for 1004. A repeat of a win that was paid is answered in either case.
- Outcomes without a code in its table get 1010, its custom code, with a type of ours.

>>> body = (
...     '{"externalReference":"agt-n1572n6e5e5w2mw13l867azo4b381t27","value":"200",'
...     '"description":"Credit game move for customer id 6df5sd made by gpas","typeCode":"GAME_CREDIT",'
...     '"tags":{"gpasSessionId":"gpas-bfd9516b-c51f-4bd5-ab83-8899100dc636","gameid":"agt-13"}}'
... )
>>> signature(b"Ax34deSfgdB", body.encode())
'ADC0C7E5A925645EED839485C12F0DFDFEEA257F'
"""

import hashlib
from collections.abc import Mapping
from typing import ClassVar, Final, Literal, NamedTuple

import msgspec
from pydantic import Field

from gateway.providers.base import (
    Callback,
    CallbackRejected,
    IntegrationSettings,
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
    WholeNumber,
    bounded_details,
    decode,
    lexeme,
    raw_text,
    reference,
)
from gateway.providers.signing import SigningKeys
from shared.ids import is_id
from shared.money import Currencies
from shared.operations import Credit
from shared.outcome import Outcome, OutcomeCode
from shared.queries import FindSession, PlayerRef


class Code(NamedTuple):
    """An HTTP status, and the code and type that go with it."""

    status: int
    code: int
    type: str


CONFIRMED: Final = Code(200, 0, "CONFIRMED")
SYSTEM_ERROR: Final = Code(500, 1001, "SYSTEM_ERROR")
INVALID_TX_ID: Final = Code(400, 1002, "INVALID_TX_ID")
DUPLICATE_TX_ID: Final = Code(400, 1003, "DUPLICATE_TX_ID")
INVALID_WALLET_SESSION: Final = Code(400, 1004, "INVALID_WALLET_SESSION")

CODES: Final[Mapping[OutcomeCode, Code]] = {
    OutcomeCode.POSTED: CONFIRMED,
    OutcomeCode.REPLAYED: CONFIRMED,
    OutcomeCode.CONFLICT: DUPLICATE_TX_ID,
    OutcomeCode.UNKNOWN_PLAYER: Code(400, 1005, "INVALID_WALLET_ID"),
    OutcomeCode.UNKNOWN_SESSION: INVALID_WALLET_SESSION,
    OutcomeCode.SESSION_CLOSED: INVALID_WALLET_SESSION,
    OutcomeCode.WRONG_CURRENCY: Code(400, 1010, "CURRENCY_ERROR"),
    OutcomeCode.BALANCE_LIMIT: Code(400, 1010, "BALANCE_LIMIT"),
    OutcomeCode.BAD_SIGNATURE: Code(400, 1006, "SIGNATURE_FAILED"),
    OutcomeCode.UNKNOWN_CALLER: SYSTEM_ERROR._replace(status=400),
    OutcomeCode.MALFORMED: Code(400, 1010, "INVALID_REQUEST"),
    OutcomeCode.INVALID_TX_ID: INVALID_TX_ID,
    OutcomeCode.UNAVAILABLE: SYSTEM_ERROR,
    OutcomeCode.UNPOSTABLE: SYSTEM_ERROR,
}
TAGS_MAX: Final = 64
MEANINGFUL_TAGS: Final = ("roundid", "gameid", "externalReferenceBet", "closeRound")


class GpasSettings(IntegrationSettings):
    """`[integrations.NAME]` of a GPAS account."""

    parent_system_id: str = Field(min_length=1)
    """The x-parent-system-id that its requests must carry."""

    duplicate_reply: Literal["original", "error"] = "original"
    """DECISION: what a repeat of a paid win gets: the original reply, or the error 400, 1003."""

    pay_closed_sessions: bool = True
    """DECISION: whether a win is paid after its session was closed."""


class CreditBody(msgspec.Struct, frozen=True, rename="camel"):
    """The body of /movements/credit."""

    external_reference: Text | WholeNumber
    value: msgspec.Raw
    type_code: Literal["GAME_CREDIT"]
    description: Anything = ABSENT
    tags: Anything = ABSENT


class Movement(NamedTuple):
    """A request: its body, and the session from its query."""

    wallet_session_id: str
    body: CreditBody


_decoder: Final = msgspec.json.Decoder(CreditBody)
_tags: Final = msgspec.json.Decoder(dict[str, Anything])


def signature(key: bytes, body: bytes) -> str:
    """Return the x-signature of a body."""
    return hashlib.sha1(body + key, usedforsecurity=False).hexdigest().upper()


class Gpas(Provider[GpasSettings, Movement]):
    """One GPAS account."""

    paths: ClassVar = ("movements/credit",)
    headers: ClassVar = frozenset({"x-parent-system-id", "x-signature"})
    reads_query: ClassVar = True
    retry_reply_varies: ClassVar = False
    settings_type: ClassVar = GpasSettings

    def __init__(self, name: str, settings: GpasSettings, secrets: SigningKeys, currencies: Currencies) -> None:
        """Choose the code of repeats by the setting."""
        super().__init__(name, settings, secrets, currencies)
        repeat = CONFIRMED if settings.duplicate_reply == "original" else DUPLICATE_TX_ID
        self._codes: Final[Mapping[OutcomeCode, Code]] = {**CODES, OutcomeCode.REPLAYED: repeat}

    def authenticate(self, callback: Callback) -> None:
        """Verify the parent system, and the x-signature header against the whole body."""
        if callback.header("x-parent-system-id") != self.settings.parent_system_id:
            raise CallbackRejected(OutcomeCode.UNKNOWN_CALLER, "x-parent-system-id is not the configured one")
        given = callback.header("x-signature")
        if not self.secrets.verify(given, lambda key: signature(key, callback.body)):
            raise CallbackRejected(OutcomeCode.BAD_SIGNATURE)

    def parse(self, callback: Callback) -> Movement:
        """Decode the body, and read the session from the query."""
        body = decode(_decoder, callback.body, too_deep=OutcomeCode.UNAVAILABLE)
        return Movement(callback.query.get("walletSessionId", ""), body)

    def lookup(self, message: Movement) -> FindSession:
        """Return the query for the player and the currency of the wallet session."""
        if not message.wallet_session_id:
            raise CallbackRejected(OutcomeCode.UNKNOWN_SESSION, "walletSessionId is missing from the query")
        if not is_id(message.wallet_session_id):
            raise CallbackRejected(OutcomeCode.UNKNOWN_SESSION)
        return FindSession(self.name, message.wallet_session_id)

    def normalize(self, message: Movement, player: PlayerRef | None) -> Credit:
        """Return a credit for the session's player, in the session's currency."""
        body, tags = message.body, _read_tags(message.body.tags)
        if player is None:
            raise CallbackRejected(OutcomeCode.UNKNOWN_SESSION)
        if not is_id(reference_text := str(body.external_reference)):
            raise CallbackRejected(OutcomeCode.INVALID_TX_ID, "externalReference is empty, too long or not printable")
        texts = {f"tags.{name}": raw_text(tag) for name, tag in tags.items()}
        return Credit(
            integration=self.name,
            provider_tx_id=reference_text,
            player_id=player.player_id,
            currency=player.currency,
            amount_minor=self.amount(lexeme(body.value, "value"), player.currency),
            round_id=reference(tags.get("roundid", ABSENT)),
            round_closed=texts.get("tags.closeRound") == "true",
            game_id=reference(tags.get("gameid", ABSENT)),
            bet_id=reference(tags.get("externalReferenceBet", ABSENT)),
            session_id=message.wallet_session_id,
            open_session_only=not self.settings.pay_closed_sessions,
            details=bounded_details(description=raw_text(body.description), **texts),
        )

    def render_outcome(self, callback: Callback, outcome: Outcome) -> Reply:
        """Reply with the movement and the balances after it, or with an error."""
        del callback  # nothing of the request is echoed
        code, receipt = self._codes[outcome.code], outcome.receipt
        if receipt is None or code is not CONFIRMED:
            error = {"code": code.code, "type": code.type, "message": explain(outcome)}
            return json_reply(error, code.status)
        real = self.number(receipt.real_balance_minor, receipt.currency)
        bonus = self.number(receipt.bonus_balance_minor, receipt.currency)
        return json_reply(
            {
                "status": code.type,
                "movementId": receipt.transfer_id,
                "leftBalance": self.number(receipt.balance_minor, receipt.currency),
                "amountBonus": self.number(receipt.bonus_minor, receipt.currency),
                "subWalletsSummary": [
                    {"code": "REAL", "leftBalance": real, "subWalletsSummary": None},
                    {"code": "BONUS", "leftBalance": bonus, "subWalletsSummary": None},
                ],
            },
            code.status,
        )

    def sample_request(self, win: Win) -> Callback:
        """Return a signed /movements/credit."""
        body = msgspec.json.encode(
            {
                "externalReference": win.provider_tx_id,
                "value": win.amount,
                "description": "Credit game move made by gpas",
                "typeCode": "GAME_CREDIT",
                "tags": {"gameid": "agt-13", "roundid": win.round_id, "closeRound": "true"},
            }
        )
        headers = {
            "content-type": "application/json",
            "x-parent-system-id": self.settings.parent_system_id,
            "x-signature": signature(self.secrets.signing, body),
        }
        return Callback("movements/credit", body, headers, {"walletSessionId": win.session_id})


def _read_tags(raw: Anything) -> dict[str, Anything]:
    """Return the tags whose names can be recorded, known ones first; an empty dict if the value is no dictionary."""
    if bytes(raw)[:1] != b"{":
        return {}
    tags = _tags.decode(raw)
    meaningful = [name for name in MEANINGFUL_TAGS if name in tags]
    others = [name for name in tags if name not in MEANINGFUL_TAGS and is_id(name)]
    return {name: tags[name] for name in (*meaningful, *others)[:TAGS_MAX]}
