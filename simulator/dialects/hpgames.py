"""HPGames, from its own side.

Its pages publish neither how long it waits nor when it sends again; `retries` is what other providers do.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final
from uuid import NAMESPACE_URL, uuid4, uuid5

import msgspec

from gateway.providers.base import Callback
from simulator.dialects.base import (
    FOREIGN_KEY,
    KEY,
    NEXT,
    PREVIOUS_KEY,
    Dialect,
    Fields,
    Written,
    body_of,
    expect,
    expect_numbers,
    spoken,
    take_message,
)
from simulator.dialects.values import Altered, Facts, HttpResponse, Paid, Retries

MERCHANT: Final = "1387a6cc-3651-4473-ae52-e415caea3395"
HASHED: Final = ("merchantId", "betId", "amount", "transactionId", "timestamp")


class HpGamesDialect(Dialect):
    """One HPGames account."""

    name = "hpgames"
    path = "credit"
    required = ("merchantId", "timestamp", "betId", "transactionId", "amount", "currency", "playerId")
    more_fields = ("rewardId", "rewardType", "jackpotId")
    amount_is_number = True
    number_ids = ("playerId",)
    tx_field = "transactionId"
    player_field = "playerId"
    currency_field = "currency"
    signature_field = "hash"
    free_text_field = "rewardId"
    silent_about = frozenset({"round_id"})
    account: ClassVar = {"merchant_id": MERCHANT}
    sends_bulks = True

    retries = Retries(window_seconds=3.0, pause_seconds=1.0, growth=1.5)
    paid_codes = frozenset({0})
    paid_mark = b'"errorCode":0'
    receipt_fields = ("accountTransactionId", "balance")
    codes: Mapping[str, int] = {
        "conflict": 1007,
        "unknown_player": 1004,
        "unknown_session": 1000,
        "session_closed": 1000,
        "wrong_currency": 1006,
        "balance_limit": 1000,
        "bad_signature": 1001,
        "unknown_caller": 1003,
        "malformed": 1002,
        "invalid_tx_id": 1002,
        "unavailable": 1008,
        "unpostable": 1000,
    }

    def __init__(self, keys: Sequence[bytes] = (KEY, PREVIOUS_KEY), **options: Any) -> None:
        """Take the codes that this account has confirmed in place of the others."""
        super().__init__(keys, **options)
        self.codes = {**self.codes, **options.get("error_codes", {})}

    def fields(self, facts: Facts) -> Fields:
        return {
            "merchantId": str(self.options["merchant_id"]),
            "timestamp": 1_773_935_126_000 + facts.delivery,
            "betId": str(uuid5(NAMESPACE_URL, facts.round_id)),
            "transactionId": facts.provider_tx_id,
            "amount": msgspec.Raw(facts.amount.encode()),
            "currency": facts.currency,
            "created": "2026-03-19T15:46:10.654321Z",
            "gameId": 1,
            "type": "REGULAR",
            "playerId": facts.player_id,
            "authToken": facts.session_id,
        }

    def signed(self, fields: Fields, key: bytes | None = None, *, facts: Facts) -> Callback:
        del facts
        return sent(body_of({**fields, "hash": _hash(fields, key or self.key)}))

    def raw(self, body: bytes, *, facts: Facts) -> Callback:
        del facts
        return sent(body)

    def forged(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        fields = self.fields(facts)
        right = _hash(fields, self.key)
        yield "by another's key", self.credit(facts, FOREIGN_KEY)
        yield "none", sent(body_of(fields))
        for wrong in (None, "", "0" * 64, right[:-1], right + "0", right.upper(), "ë"):
            yield repr(wrong), sent(body_of({**fields, "hash": wrong}))
        for name, changed in (
            ("amount", msgspec.Raw(b"10.51")),
            ("amount", msgspec.Raw(b"10.5")),
            ("timestamp", 1_773_935_126_002),
            ("transactionId", str(uuid4())),
            ("betId", str(uuid4())),
        ):
            yield f"{name} changed", sent(body_of({**fields, name: changed, "hash": right}))

    def altered(self, facts: Facts, other: Facts) -> Iterable[Altered]:
        bet_id = str(uuid5(NAMESPACE_URL, "round-2"))
        yield Altered("amount_minor", 1051, self.credit(facts.but(amount="10.51")))
        yield Altered("player_id", other.player_id, self.credit(facts.but(player_id=other.player_id)))
        yield Altered("currency", "USD", self.credit(facts.but(currency="USD")))
        yield Altered("bet_id", bet_id, self.saying(facts, betId=bet_id))
        yield Altered("game_id", "2", self.saying(facts, gameId=2))
        yield Altered("kind", "jackpot", self.saying(facts, type="JACKPOT"))
        yield Altered("kind", "reward", self.saying(facts, type="REWARD"))

    def redelivered(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        for name, otherwise in {
            "timestamp": 1_773_935_999_999,
            "created": "2026-03-20T00:00:00Z",
            "authToken": facts.session_id + NEXT,
            "rewardId": "reward-2",
            "jackpotId": "jackpot-2",
            "amount": msgspec.Raw(b"10.5000"),
            "betId": self.fields(facts)["betId"].upper(),
        }.items():
            yield name, self.saying(facts, **{name: otherwise})
        yield "secret", self.credit(facts, PREVIOUS_KEY)

    def saying(self, facts: Facts, **changes: Any) -> Callback:
        """Return a request with other fields."""
        return self.signed({**self.fields(facts), **changes}, facts=facts)

    def without_bet(self, facts: Facts) -> Callback:
        jackpot = {"type": "JACKPOT", "jackpotId": str(uuid4())}
        return self.signed({**self.fields(facts), **jackpot}, facts=facts)

    def recorded(self, facts: Facts) -> dict[str, Any]:
        return {
            "kind": "win",
            "round_id": None,
            "round_closed": False,
            "game_id": "1",
            "bet_id": str(uuid5(NAMESPACE_URL, facts.round_id)),
            "session_id": None,
            "details": {
                "timestamp": str(1_773_935_126_000 + facts.delivery),
                "created": "2026-03-19T15:46:10.654321Z",
            },
        }

    def bulk(self, wins: Sequence[Callback]) -> Callback:
        body = b'{"creditRequests":[' + b",".join(win.body for win in wins) + b"]}"
        return Callback("bulkCredit", body, {"content-type": "application/json"})

    def fields_of(self, response: HttpResponse) -> dict[str, Any]:
        expect(response.status_code, 200)
        return super().fields_of(response)

    def code_of(self, response: HttpResponse, reply: Fields) -> int:
        del response
        return int(reply["errorCode"])

    def read_paid(self, response: HttpResponse, facts: Facts, *, replay: bool) -> Paid:
        return self.read_paid_item(self.exact_fields(response), facts, replay=replay)

    def read_paid_item(self, reply: dict[str, Any], facts: Facts, *, replay: bool) -> Paid:
        """Read one reply, which may be one of several in a bulk reply."""
        del replay  # a repeat's reply is the same
        wanted = {
            "errorCode": "0",
            "errorText": "",
            "balance": reply.get("balance"),
            "currency": facts.currency,
            "transactionId": facts.provider_tx_id,
            "accountTransactionId": reply.get("accountTransactionId"),
        }
        expect(reply, wanted)
        expect_numbers(reply["errorCode"], reply["balance"])
        return Paid(reply["accountTransactionId"], reply["balance"])

    def assert_error(self, response: HttpResponse, what: str, *, tx: str | None) -> None:
        self.assert_error_item(self.exact_fields(response), what, tx=tx)

    def assert_error_item(self, reply: dict[str, Any], what: str, *, tx: str | None) -> None:
        """Check one error, which may be one of several in a bulk reply."""
        echo = {} if tx is None else {"transactionId": tx}
        expect(take_message(reply, "errorText"), {"errorCode": Written(self.codes[what]), **echo})


def _hash(fields: Fields, key: bytes) -> str:
    message = "".join(spoken(fields.get(name)) for name in HASHED)
    return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


def sent(body: bytes) -> Callback:
    """Return a request of this body."""
    return Callback("credit", body, {"content-type": "application/json"})


DIALECT: Final = HpGamesDialect()
