"""Klas Gaming, from its own side.

Its pages publish neither how long it waits nor when it sends again; `retries` is what others of this field do.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Final

from gateway.providers.base import Callback
from simulator.dialects.base import FOREIGN_KEY, KEY, NEXT, PREVIOUS_KEY, Dialect, Fields, body_of, expect
from simulator.dialects.values import Altered, Facts, HttpResponse, Paid, Retries


class KlasDialect(Dialect):
    """One Klas account."""

    name = "klas"
    path = "credit"
    required = ("player_id", "transfer_id", "amount", "currency")
    number_ids = ("player_id", "transfer_id")
    tx_field = "transfer_id"
    player_field = "player_id"
    currency_field = "currency"
    free_text_field = "round_id"
    silent_about = frozenset({"bet_id"})

    retries = Retries(window_seconds=5.0, pause_seconds=1.0, growth=2.0)
    paid_codes = frozenset({"OK"})
    paid_mark = b'"status_code":"OK"'
    receipt_fields = ("casino_transfer_id", "balance")
    codes: Mapping[str, str] = {
        "conflict": "ERR_UNKNOWN",
        "unknown_player": "ERR_UNKNOWN",
        "unknown_session": "ERR_UNKNOWN",
        "session_closed": "ERR_UNKNOWN",
        "wrong_currency": "ERR_UNKNOWN",
        "balance_limit": "ERR_UNKNOWN",
        "bad_signature": "ERR_INTEGRITY_CHECK_FAILED",
        "unknown_caller": "ERR_UNKNOWN",
        "malformed": "ERR_UNKNOWN",
        "invalid_tx_id": "ERR_UNKNOWN",
        "unavailable": "ERR_TIMEOUT",
        "unpostable": "ERR_TIMEOUT",
    }

    def fields(self, facts: Facts) -> Fields:
        return {
            "request_id": f"request-{facts.delivery}",
            "timestamp": 1_710_000_000 + facts.delivery,
            "session_id": facts.session_id,
            "player_id": facts.player_id,
            "game_code": "ABSlot",
            "transfer_id": facts.provider_tx_id,
            "round_id": facts.round_id,
            "round_completed": True,
            "amount": facts.amount,
            "currency": facts.currency,
            "reason": "win",
            "gift_spin": {},
            "jackpot_wins": "0",
            "deduction": "0",
        }

    def signed(self, fields: Fields, key: bytes | None = None, *, facts: Facts) -> Callback:
        del facts
        return signed_request(body_of(fields), key or self.key)

    def raw(self, body: bytes, *, facts: Facts) -> Callback:
        del facts
        return signed_request(body, self.key)

    def forged(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        right = self.credit(facts)
        signature = right.headers["x-signature"]
        yield "by another's key", self.credit(facts, FOREIGN_KEY)
        yield "of another body", right._replace(headers=self.credit(facts.but(amount="10.51")).headers)
        yield "none", right._replace(headers={"content-type": "application/json"})
        for wrong in ("", "0" * 64, signature[:-1], signature + "0", signature[::-1]):
            yield repr(wrong), right._replace(headers={**right.headers, "x-signature": wrong})
        for at in range(0, len(right.body), 7):
            changed = bytearray(right.body)
            changed[at] ^= 1
            yield f"byte {at} changed", right._replace(body=bytes(changed))

    def altered(self, facts: Facts, other: Facts) -> Iterable[Altered]:
        yield Altered("amount_minor", 1051, self.credit(facts.but(amount="10.51")))
        yield Altered("player_id", other.player_id, self.credit(facts.but(player_id=other.player_id)))
        yield Altered("currency", "USD", self.credit(facts.but(currency="USD")))
        yield Altered("round_id", "round-2", self.credit(facts.but(round_id="round-2")))
        yield Altered("game_id", "Other", self.saying(facts, game_code="Other"))
        yield Altered("kind", "free_spin", self.saying(facts, gift_spin={"spins": 1}))

    def redelivered(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        for name, otherwise in {
            "request_id": "request-2",
            "timestamp": 1_710_000_000_123,
            "session_id": facts.session_id + NEXT,
            "round_completed": False,
            "reason": "again",
            "gift_spin": None,
            "jackpot_wins": {"level": 1},
            "deduction": "0.50",
            "amount": "10.5000",
        }.items():
            yield name, self.saying(facts, **{name: otherwise})
        yield "secret", self.credit(facts, PREVIOUS_KEY)

    def saying(self, facts: Facts, **changes: Any) -> Callback:
        """Return a request with other fields."""
        return self.signed({**self.fields(facts), **changes}, facts=facts)

    def without_bet(self, facts: Facts) -> Callback:
        return self.credit(facts.but(round_id="a-round-without-a-bet"))

    def recorded(self, facts: Facts) -> dict[str, Any]:
        return {
            "kind": "win",
            "round_id": facts.round_id,
            "round_closed": True,
            "game_id": "ABSlot",
            "bet_id": None,
            "session_id": facts.session_id,
            "details": {
                "request_id": f"request-{facts.delivery}",
                "timestamp": str(1_710_000_000 + facts.delivery),
                "reason": "win",
                "jackpot_wins": "0",
                "deduction": "0",
            },
        }

    def fields_of(self, response: HttpResponse) -> dict[str, Any]:
        """Return the fields of a reply that is signed over its own body."""
        expect(response.status_code, 200)
        signature = hmac.new(self.key, response.content, hashlib.sha256).hexdigest()
        expect(response.headers.get("x-signature"), signature)
        return super().fields_of(response)

    def code_of(self, response: HttpResponse, reply: Fields) -> str:
        del response
        return str(reply["status_code"])

    def read_paid(self, response: HttpResponse, facts: Facts, *, replay: bool) -> Paid:
        del facts, replay  # a repeat's reply is the same
        reply = self.exact_fields(response)
        names = ["balance", "casino_transfer_id", "bonus_amount", "real_amount", "status_code"]
        expect(list(reply), names)
        expect(reply["status_code"], "OK")
        expect([type(value) for value in reply.values()], [str] * len(names))
        return Paid(reply["casino_transfer_id"], reply["balance"], reply["real_amount"], reply["bonus_amount"])

    def assert_error(self, response: HttpResponse, what: str, *, tx: str | None) -> None:
        del tx  # its errors name nothing
        expect(self.exact_fields(response), {"status_code": self.codes[what]})


def signed_request(body: bytes, key: bytes = KEY, path: str = "credit") -> Callback:
    """Return a request of this body to either operation."""
    signature = hmac.new(key, body, hashlib.sha256).hexdigest()
    return Callback(path, body, {"content-type": "application/json", "x-signature": signature})


DIALECT: Final = KlasDialect()
