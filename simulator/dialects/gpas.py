"""GPAS, from its own side.

Its pages publish neither how long it waits nor when it sends again; `retries` is what other providers do.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from gateway.providers.base import Callback
from simulator.dialects.base import (
    FOREIGN_KEY,
    IN_DOLLARS,
    NEXT,
    PREVIOUS_KEY,
    Dialect,
    Fields,
    Written,
    body_of,
    expect,
    expect_numbers,
    take_message,
)
from simulator.dialects.values import Altered, Facts, HttpResponse, Paid, Retries

PARENT: Final = "BL13GT"
CONFIRMED: Final = (200, "CONFIRMED")


class GpasDialect(Dialect):
    """One GPAS account."""

    name = "gpas"
    path = "movements/credit"
    required = ("externalReference", "value", "typeCode")
    amount_field = "value"
    number_ids = ("externalReference",)
    tx_field = "externalReference"
    free_text_field = "description"
    unknown_player = "unknown_session"
    silent_about = frozenset({"kind"})
    account: ClassVar = {"parent_system_id": PARENT}

    retries = Retries(window_seconds=5.0, pause_seconds=2.0, growth=1.5)
    paid_codes = frozenset({CONFIRMED})
    paid_mark = b'"status":"CONFIRMED"'
    receipt_fields = ("movementId", "leftBalance")
    codes: Mapping[str, tuple[int, int, str]] = {
        "conflict": (400, 1003, "DUPLICATE_TX_ID"),
        "unknown_player": (400, 1005, "INVALID_WALLET_ID"),
        "unknown_session": (400, 1004, "INVALID_WALLET_SESSION"),
        "session_closed": (400, 1004, "INVALID_WALLET_SESSION"),
        "wrong_currency": (400, 1010, "CURRENCY_ERROR"),
        "balance_limit": (400, 1010, "BALANCE_LIMIT"),
        "bad_signature": (400, 1006, "SIGNATURE_FAILED"),
        "unknown_caller": (400, 1001, "SYSTEM_ERROR"),
        "malformed": (400, 1010, "INVALID_REQUEST"),
        "invalid_tx_id": (400, 1002, "INVALID_TX_ID"),
        "unavailable": (500, 1001, "SYSTEM_ERROR"),
        "unpostable": (500, 1001, "SYSTEM_ERROR"),
    }

    def fields(self, facts: Facts) -> Fields:
        return {
            "externalReference": facts.provider_tx_id,
            "value": facts.amount,
            "description": f"delivery {facts.delivery}",
            "typeCode": "GAME_CREDIT",
            "tags": self.tags(facts),
        }

    def tags(self, facts: Facts) -> dict[str, Any]:
        """Return the tags of a request."""
        return {
            "gpasSessionId": "gpas-bfd9516b",
            "gameid": "agt-13",
            "roundid": facts.round_id,
            "closeRound": "true",
            "externalReferenceBet": "agt-53rr34pq",
        }

    def tagged(self, facts: Facts, **tags: Any) -> Callback:
        """Return a request with other tags."""
        return self.signed({**self.fields(facts), "tags": {**self.tags(facts), **tags}}, facts=facts)

    def signed(self, fields: Fields, key: bytes | None = None, *, facts: Facts) -> Callback:
        return self._signed(body_of(fields), key or self.key, facts.session_id)

    def raw(self, body: bytes, *, facts: Facts) -> Callback:
        return self._signed(body, self.key, facts.session_id)

    def forged(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        right = self.credit(facts)
        signature = right.headers["x-signature"]
        yield "by another's key", self.credit(facts, FOREIGN_KEY)
        yield "of another body", right._replace(headers=self.credit(facts.but(amount="10.51")).headers)
        yield "none", right._replace(headers={k: v for k, v in right.headers.items() if k != "x-signature"})
        for wrong in ("", "0" * 40, signature[:-1], signature + "0", signature.lower()):
            yield repr(wrong), right._replace(headers={**right.headers, "x-signature": wrong})
        for at in range(0, len(right.body), 7):
            changed = bytearray(right.body)
            changed[at] ^= 1
            yield f"byte {at} changed", right._replace(body=bytes(changed))

    def altered(self, facts: Facts, other: Facts) -> Iterable[Altered]:
        in_dollars = facts.but(session_id=facts.session_id + IN_DOLLARS)
        yield Altered("amount_minor", 1051, self.credit(facts.but(amount="10.51")))
        yield Altered("player_id", other.player_id, self.credit(facts.but(session_id=other.session_id)))
        yield Altered("currency", "USD", self.credit(in_dollars))
        yield Altered("round_id", "round-2", self.credit(facts.but(round_id="round-2")))
        yield Altered("game_id", "other", self.tagged(facts, gameid="other"))
        yield Altered("bet_id", None, self.tagged(facts, externalReferenceBet=None))

    def redelivered(self, facts: Facts) -> Iterable[tuple[str, Callback]]:
        fields = self.fields(facts)
        yield "description", self.signed({**fields, "description": "again"}, facts=facts)
        yield "value", self.signed({**fields, "value": msgspec.Raw(b"10.5000")}, facts=facts)
        yield "closeRound", self.tagged(facts, closeRound="false")
        yield "gpasSessionId", self.tagged(facts, gpasSessionId="gpas-2")
        yield "a tag of its own", self.tagged(facts, campaign="spring")
        yield "wallet session", self.credit(facts.but(session_id=facts.session_id + NEXT))
        yield "secret", self.credit(facts, PREVIOUS_KEY)

    def without_bet(self, facts: Facts) -> Callback:
        return self.tagged(facts, externalReferenceBet=None)

    def recorded(self, facts: Facts) -> dict[str, Any]:
        return {
            "kind": "win",
            "round_id": facts.round_id,
            "round_closed": True,
            "game_id": "agt-13",
            "bet_id": "agt-53rr34pq",
            "session_id": facts.session_id,
            "details": {
                "description": f"delivery {facts.delivery}",
                **{f"tags.{name}": text for name, text in self.tags(facts).items()},
            },
        }

    def status_of(self, what: str) -> int:
        return self.codes[what][0]

    def code_of(self, response: HttpResponse, reply: Fields) -> Hashable:
        if response.status_code == 200:
            return 200, reply["status"]
        return response.status_code, int(reply["code"]), reply["type"]

    def read_paid(self, response: HttpResponse, facts: Facts, *, replay: bool) -> Paid:
        del facts, replay  # a repeat's reply is the same
        reply = self.exact_fields(response)
        expect(list(reply), ["status", "movementId", "leftBalance", "amountBonus", "subWalletsSummary"])
        expect(self.code_of(response, reply), CONFIRMED)
        real, bonus = reply["subWalletsSummary"]
        for code, wallet in (("REAL", real), ("BONUS", bonus)):
            expect({**wallet, "leftBalance": None}, {"code": code, "leftBalance": None, "subWalletsSummary": None})
        expect_numbers(reply["leftBalance"], reply["amountBonus"], real["leftBalance"], bonus["leftBalance"])
        expect((reply["leftBalance"], bonus["leftBalance"]), (real["leftBalance"], "0"))
        return Paid(reply["movementId"], reply["leftBalance"], bonus_amount=reply["amountBonus"])

    def assert_error(self, response: HttpResponse, what: str, *, tx: str | None) -> None:
        del tx  # its errors name nothing
        status, code, kind = self.codes[what]
        expect(response.status_code, status)
        expect(take_message(self.exact_fields(response), "message"), {"code": Written(code), "type": kind})

    def _signed(self, body: bytes, key: bytes, session_id: str) -> Callback:
        headers = {
            "content-type": "application/json",
            "x-parent-system-id": self.options["parent_system_id"],
            "x-signature": hashlib.sha1(body + key, usedforsecurity=False).hexdigest().upper(),
        }
        return Callback(self.path, body, headers, {"walletSessionId": session_id})


DIALECT: Final = GpasDialect()
